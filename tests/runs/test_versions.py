import json
import socket
import subprocess
import sys

import numpy as np

from utils.runs.versions import git_commit, versions


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_versions_fit_into_json_and_name_no_machine(tmp_path):
    found = versions(tmp_path / "agent.py")
    assert found["numpy"] == np.__version__
    assert found["python"] == sys.version.split()[0]
    assert found["devices"]
    assert found["agent_git"] is None
    assert {"jax", "jaxlib", "flax", "optax", "ogbench", "mujoco", "gymnasium"} <= set(found)
    host = socket.gethostname()
    assert host not in json.dumps(found).replace(found["platform"], "")


def test_versions_tell_commit_and_changes(tmp_path, monkeypatch):
    assert git_commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    commit = git_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "file").write_text("2")
    assert git_commit(tmp_path) == commit + "+dirty"


def test_versions_tell_the_commit_of_the_agents_own_repository(tmp_path):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-qm", "first", "--allow-empty")
    (tmp_path / "agent.py").write_text("")
    assert versions(tmp_path / "agent.py")["agent_git"] == git_commit(tmp_path)
    assert git_commit(tmp_path).endswith("+dirty")
