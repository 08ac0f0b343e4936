"""The metrics log and its torn last lines."""

import json
import resource

import numpy as np
import pytest

from posediff_jax.training.metrics_log import MetricsLog, read_metrics


def test_lines_come_back_in_order(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    with MetricsLog(path, keep_until=0) as log:
        log.write(10, "train", {"loss": np.float32(0.5), "count": 3})
        log.write(10, "eval", {"mpjpe": 42.0})
        # What was written is on disk before the log is closed.
        assert len(read_metrics(path)) == 2
    lines = read_metrics(path)
    assert [(line["step"], line["split"]) for line in lines] == [(10, "train"), (10, "eval")]
    assert lines[0]["loss"] == 0.5
    assert lines[0]["count"] == 3


def test_resuming_drops_lines_past_the_restored_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, keep_until=0) as log:
        for step in (10, 20, 30):
            log.write(step, "train", {"loss": step})
    with MetricsLog(path, keep_until=20) as log:
        log.write(30, "train", {"loss": -1})
    assert [line["loss"] for line in read_metrics(path)] == [10, 20, -1]


@pytest.mark.parametrize("torn", [b'{"step": 30, "spl', b'{"step": 30}', b"\xff\xfe"])
def test_a_torn_last_line_is_left_out_and_overwritten(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, keep_until=0) as log:
        log.write(10, "train", {"loss": 1.0})
    path.write_bytes(path.read_bytes() + torn)
    assert [line["step"] for line in read_metrics(path)] == [10]
    with MetricsLog(path, keep_until=50) as log:
        log.write(20, "train", {"loss": 2.0})
    assert [line["step"] for line in read_metrics(path)] == [10, 20]


def test_a_broken_line_before_the_last_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2"):
        read_metrics(path)


def test_a_full_disk_is_named_and_tears_no_more_than_the_last_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with MetricsLog(path, keep_until=0) as log:
        log.write(10, "train", {"loss": 1.0})
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
            with pytest.raises(OSError, match=r"metrics\.jsonl: could not be written .*too large"):
                log.write(20, "train", {"loss": 2.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [line["step"] for line in read_metrics(path)] == [10]
    assert path.read_bytes().count(b"step") == 2


def test_values_that_are_not_finite_stay_valid_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, keep_until=0) as log:
        log.write(1, "eval", {"a": float("nan"), "b": np.inf})

    def refuse(token):
        raise AssertionError(token)

    line = json.loads(path.read_text(), parse_constant=refuse)
    assert line["a"] is None
    assert line["b"] is None


def test_refuses_arrays_and_reserved_names(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl", keep_until=0) as log:
        with pytest.raises(TypeError, match="per_joint"):
            log.write(1, "eval", {"per_joint": np.zeros(17)})
        with pytest.raises(ValueError, match="step"):
            log.write(1, "eval", {"step": 3})
    assert (tmp_path / "metrics.jsonl").read_text() == ""
