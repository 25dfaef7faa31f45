"""GLiNER at its small size over given texts and types, in a virtual environment of its own (PyPI `gliner`).

    python bench/parts/gliner_way.py < {"tokenizer": FOLDER, "texts": [...], "types": [[...], ...], "runs", "threads"}

The architecture is that of gliner_small-v2.1 over deberta-v3-small, built from the configuration below with random
weights, so that nothing is downloaded: only its time counts, not what it finds. Its tokenizer would be a download too,
so the student's is used. Prints the median seconds per passage for each list of types.
"""

import json
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

import torch  # noqa: E402
from gliner import GLiNER, GLiNERConfig  # noqa: E402  # pyright: ignore[reportMissingImports]  # only there
from transformers import AutoTokenizer  # noqa: E402

ENCODER = {  # config.json of microsoft/deberta-v3-small
    "model_type": "deberta-v2", "hidden_size": 768, "num_hidden_layers": 6, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 512, "relative_attention": True,
    "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": "p2c|c2p",
    "max_relative_positions": -1, "position_biased_input": False, "type_vocab_size": 0, "layer_norm_eps": 1e-7,
    "vocab_size": 128100, "pad_token_id": 0,
}  # fmt: skip


def build(tokenizer: str) -> GLiNER:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(ENCODER))
        ours = AutoTokenizer.from_pretrained(tokenizer)
        ours.pad_token = ours.pad_token or ours.eos_token
        ours.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"})
        ours.chat_template = None
        ours.save_pretrained(folder)
        config = GLiNERConfig(
            model_name=folder, hidden_size=512, max_width=12, span_mode="markerV0", num_rnn_layers=1, max_len=384,
            encoder_config=ENCODER,
        )  # fmt: skip
        return GLiNER.from_config(config, backbone_from_pretrained=False)


def main() -> None:
    task = json.load(sys.stdin)
    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    model, seconds = build(task["tokenizer"]), []
    with torch.inference_mode():
        for types in task["types"]:
            runs = []
            for _ in range(task["runs"] + 1):  # the first warms up
                started = time.perf_counter()
                for text in task["texts"]:
                    model.predict_entities(text, types, threshold=0.9999)
                runs.append((time.perf_counter() - started) / len(task["texts"]))
            seconds.append(statistics.median(runs[1:]))
    parameters = sum(weight.numel() for weight in model.parameters())
    print(json.dumps({"seconds": seconds, "parameters": parameters}))


if __name__ == "__main__":
    main()
