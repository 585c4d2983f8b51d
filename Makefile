# make demo: install, collect a small real dataset, train DeFlow and behaviour cloning, compare.
# make test: install, lint, and the default tests. make test-all adds the slow ones;
# make test-learning runs those that train until something is learnt.
# make test-slurm: sweeps on a Slurm that is installed if need be, started in a scratch folder, and
# stopped after; what it cannot install it skips, and says why.
# make results: every offline agent on two tasks at the demo's size, five seeds each, and a report. It
# takes hours, and goes on where it was stopped. Some agents: make results AGENTS='deflow|fql'.
# make results-online: the same for four agents that go on online.
# make results-antmaze: the same for DeFlow and BC in antmaze-medium-navigate, three seeds each.
# make test-agent AGENT=path/to/agent.py: the common behaviour tests on one agent, of any folder.
# make bench: speed on this machine. make parity: D4RL's tasks against the original code.

PYTHON ?= $(shell for p in python3 python3.12 python3.11; do $$p -c \
	'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& echo $$p && break; done)
VENV ?= .venv
PY = $(VENV)/bin/python

# The demo's seeds are trained together: `make demo SEEDS=3`.
SEEDS ?= 1
DEMO = demo
DATA = $(DEMO)/data/cube-single-play-v0.npz
SCENE = $(DEMO)/data/scene-play-v0.npz
ANTMAZE = $(DEMO)/data/antmaze-medium-navigate-v0.npz
EPISODES = 150
TRAIN = $(PY) main.py --env_name=cube-single-play --dataset_dir=$(DEMO)/data \
	--save_dir=$(DEMO)/runs --num_seeds=$(SEEDS) --offline_steps=20000 --log_interval=500 \
	--eval_interval=4000 --save_interval=4000 --wandb_mode=disabled \
	--agent.lr=1e-3 '--agent.actor_hidden_dims=(128, 128, 128)' \
	'--agent.value_hidden_dims=(128, 128, 128)'

AGENTS ?= [a-z]+
WORKERS ?= 2

.PHONY: demo results results-online results-antmaze test test-all test-learning test-slurm test-agent lint bench parity clean

demo: $(VENV)/installed $(DATA)
	$(TRAIN) --run_group=DeFlow-$(SEEDS) --eval_episodes=20 --video_frame_skip=4 \
		--video_episodes=$$($(PY) -c \
		'from utils.envs.rendering import choose_gl; print(int(choose_gl() != "disabled"))')
	$(TRAIN) --run_group=BC-$(SEEDS) --eval_episodes=20 --agent.bc_only=True
	$(PY) -m utils.report $$(ls -td $(DEMO)/runs/DeFlow-$(SEEDS)/*/* | head -n 1) \
		$$(ls -td $(DEMO)/runs/BC-$(SEEDS)/*/* | head -n 1) \
		--labels=DeFlow,BC --output=$(DEMO)/report
	@find $(DEMO)/runs -name '*.mp4' | sort -V | tail -n 1

$(DEMO)/data/%-v0.npz: $(VENV)/installed
	test -f $@ || $(PY) -m utils.collect --env_name=$* --episodes=$(EPISODES) \
		--workers=2 --dataset_dir=$(DEMO)/data
	touch $@

results results-online: $(DATA) $(SCENE)
results-antmaze: EPISODES = 100
results-antmaze: $(ANTMAZE)
results results-online results-antmaze: $(VENV)/installed
	grep -E 'agents/($(AGENTS))\.py' tests/learning/$@.txt > $(DEMO)/$@.txt
	PATH="$(abspath $(VENV)/bin):$$PATH" \
		$(PY) -m utils.sweep run $(DEMO)/$@.txt --workers=$(WORKERS)

test: lint
	$(PY) -m pytest -n 2 -m "not slow and not learning and not slurm"

test-all: lint
	$(PY) -m pytest -n 2 -m "not learning and not slurm"

test-learning: lint
	$(PY) -m pytest -n 2 -m learning

test-slurm: lint
	sh tests/slurm/install.sh
	$(PY) -m pytest tests/slurm

test-agent: $(VENV)/installed
	@test -f "$(AGENT)" || { echo "error: AGENT=$(AGENT) is no file; give an agent's path"; exit 1; }
	$(PY) -m pytest tests/test_agent_contract.py --agent="$(AGENT)"

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

bench: $(VENV)/installed
	$(PY) -m tests.benchmarks.throughput --cores=1
	$(PY) -m tests.benchmarks.online --networks 64x64

parity: $(VENV)/installed
	$(PY) -m tests.parity

$(VENV)/installed: requirements.txt tests/requirements.txt constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or 3.12 is needed; name it by PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check -r tests/requirements.txt \
		-c constraints.txt -e .
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) .pytest_cache .ruff_cache
