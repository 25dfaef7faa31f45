"""Tokens per character of tokenizers in several languages: Article 1 of the Universal Declaration of Human Rights.

    python bench/languages.py --output results/languages/table.md
    python bench/languages.py --tokenizers models/smollm2-135m-instruct org/model

A tokenizer is a folder or a Hub id. Above one token per character, a tokenizer spells the characters in bytes.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from command_line.spelling import tokens_per_character  # noqa: E402
from dataset_builder.corpus.cutting import load_tokenizer  # noqa: E402
from open_ner.tools.errors import run  # noqa: E402
from open_ner.tools.files import write_atomic  # noqa: E402

ARTICLE_1 = {
    "English (en)": (
        "All human beings are born free and equal in dignity and rights. They are endowed with "
        "reason and conscience and should act towards one another in a spirit of brotherhood."
    ),
    "German (de)": (
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft "
        "und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen."
    ),
    "French (fr)": (
        "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués "
        "de raison et de conscience et doivent agir les uns envers les autres dans un esprit de "
        "fraternité."
    ),
    "Vietnamese (vi)": (
        "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi. Mọi "
        "con người đều được tạo hóa ban cho lý trí và lương tâm và cần phải đối xử với nhau trong tình "
        "anh em."
    ),
    "Russian (ru)": (
        "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены "
        "разумом и совестью и должны поступать в отношении друг друга в духе братства."
    ),
    "Greek (el)": (
        "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι "
        "προικισμένοι με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμα "
        "αδελφοσύνης."
    ),
    "Arabic (ar)": (
        "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. وقد وهبوا عقلًا وضميرًا وعليهم أن "
        "يعامل بعضهم بعضًا بروح الإخاء."
    ),
    "Hebrew (he)": (
        "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון, לפיכך "
        "חובה עליהם לנהוג איש ברעהו ברוח של אחווה."
    ),
    "Hindi (hi)": (
        "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। "
        "उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना "
        "चाहिए।"
    ),
    "Bengali (bn)": (
        "সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে। তাঁদের বিবেক এবং "
        "বুদ্ধি আছে; সুতরাং সকলেরই একে অপরের প্রতি ভ্রাতৃত্বসুলভ মনোভাব নিয়ে আচরণ করা উচিত।"
    ),
    "Thai (th)": (
        "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ"
    ),
    "Korean (ko)": (
        "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. "
        "인간은 천부적으로 이성과 양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다."
    ),
    "Japanese (ja)": (
        "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。"
        "人間は、理性と良心とを授けられており、互いに同胞の精神をもって行動しなければならない。"
    ),
    "Chinese (zh)": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizers", nargs="+", default=["models/smollm2-135m-instruct"])
    parser.add_argument("--output", type=Path, help="Markdown file for the table")
    args = parser.parse_args()
    table = make_table(args.tokenizers)
    print(table)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(args.output, f"{table}\n")


def make_table(names: list[str]) -> str:
    """Return a Markdown table: tokens per character and tokens of the whole article, of each tokenizer."""
    titles = [f"tokens per character, {Path(name).name} | tokens of the text" for name in names]
    lines = [f"| language | {' | '.join(titles)} |", "|---|" + "--:|" * 2 * len(names)]
    counts = [counter(name) for name in names]
    for language, text in ARTICLE_1.items():
        cells = [f"{tokens_per_character([text], count):.2f} | {count([text])}" for count in counts]
        lines.append(f"| {language} | {' | '.join(cells)} |")
    return "\n".join(lines)


def counter(name: str) -> Callable[[list[str]], int]:
    tokenizer = load_tokenizer(name)
    return lambda texts: sum(map(len, tokenizer.encode_batch_fast(texts, add_special_tokens=False)))


if __name__ == "__main__":
    run(main)
