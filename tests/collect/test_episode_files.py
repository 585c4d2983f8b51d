"""Files of finished episodes, and how they are joined."""

import zipfile

import numpy as np

from utils.collect import episode_files


def test_joining_is_concatenation(tmp_path):
    rng = np.random.default_rng(0)
    episodes = [
        {
            "observations": rng.normal(size=(11, 3)).astype(np.float32),
            "terminals": rng.random(11) < 0,
        }
        for _ in range(3)
    ]
    for number, episode in enumerate(episodes):
        episode_files.save(tmp_path, "train", number, episode)
    counts = {"train": 3}
    assert episode_files.missing(tmp_path, counts) == []
    episode_files.join(tmp_path, counts, rows=11)
    joined = episode_files.merged(tmp_path, counts) / "train.npz"
    with np.load(joined) as archive:
        for key in ("observations", "terminals"):
            np.testing.assert_array_equal(archive[key], np.concatenate([e[key] for e in episodes]))
    with zipfile.ZipFile(joined) as archive:
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_DEFLATED}


def test_missing_are_the_episodes_without_a_file(tmp_path):
    episode_files.save(tmp_path, "train", 1, {"actions": np.zeros((2, 1))})
    (tmp_path / "val-000000.npz.tmp").write_bytes(b"of a writer that died")
    counts = {"train": 3, "val": 1}
    assert episode_files.missing(tmp_path, counts) == [("train", 0), ("train", 2), ("val", 0)]
