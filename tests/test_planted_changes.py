"""Changes that few would see, made in a copy of xbp: each is seen by the test beside it.

What people read, what threads share, and what is on the disk when the machine stops are where a
fault hides: no number is wrong, until the day that it matters.
"""

import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
from support import once

import xbp

pytestmark = [
    once,
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and the tests of files do"),
]

TESTS = Path(__file__).parent
PROJECT = str(TESTS.parent / "pyproject.toml")
PACKAGES = {"xbp": xbp, "backends": import_module("xbp_backends")}


class Change(NamedTuple):
    """A text in a file, another in its place, and the test that fails then."""

    file: str
    text: str
    replacement: str
    test: str


ORDER = "test_file_faults.py::test_what_is_written_is_on_the_disk_before_it_has_its_name"
COPY = "test_file_faults.py::test_what_was_there_is_kept_as_a_copy_where_there_are_no_links"

DURABILITY = {
    "a content is not synced": Change(
        "xbp/files/transaction.py", "content)\n        os.fsync(descriptor)\n", "content)\n", ORDER
    ),
    "the journal is not synced": Change(
        "xbp/files/transaction.py", "step)\n        os.fsync(self._descriptor)\n", "step)\n", ORDER
    ),
    "a folder is not synced before the names": Change(
        "xbp/files/transaction.py",
        "                sync_folder(folder)\n            self._note(_PREPARED)\n",
        "                pass\n            self._note(_PREPARED)\n",
        ORDER,
    ),
    "a folder is not synced behind the names": Change(
        "xbp/files/transaction.py",
        "                sync_folder(folder)\n            self._note(_DONE)\n",
        "                pass\n            self._note(_DONE)\n",
        ORDER,
    ),
    "the folder of a new file is not synced": Change(
        "xbp/files/transaction.py",
        "            sync_folder(file.target.parent)\n",
        "            pass\n",
        ORDER,
    ),
    "no folder is synced": Change(
        "xbp/files/descriptors.py", "        os.fsync(descriptor)\n", "        pass\n", ORDER
    ),
    "a new folder is not synced": Change(
        "xbp/files/files.py",
        "sync_folder(place.parent)",
        "pass",
        "test_file_faults.py::test_new_folders_are_on_the_disk_too",
    ),
    "a copy is synced before it is flushed": Change(
        "xbp/files/transaction.py",
        "            copy.flush()\n            os.fsync(copy.fileno())\n",
        "            os.fsync(copy.fileno())\n            copy.flush()\n",
        COPY,
    ),
    "a copy is not synced": Change(
        "xbp/files/transaction.py", "            os.fsync(copy.fileno())\n", "", COPY
    ),
    "what is put back is not synced": Change(
        "xbp/files/transaction.py",
        "        try:\n            sync_folder(folder)\n",
        "        try:\n            pass\n",
        "test_file_faults.py::test_what_is_put_back_is_on_the_disk_before_the_journal_goes",
    ),
    "what comes out as it went in is taken for an array": Change(
        "xbp/recording/tracing.py",
        "if is_array(result) and result is traced.value:",
        "if result is traced.value:",
        "test_optimizer_state.py::test_what_a_step_remembers_may_change_places",
    ),
    "arrays that change places are not copied": Change(
        "xbp/recording/recording.py",
        "self._copy(leaf) if number in self.program.donated else leaf",
        "leaf",
        "test_optimizer_state.py::test_what_a_step_remembers_may_change_places",
    ),
    "arguments are known by their number": Change(
        "xbp/recording/recording.py",
        "structure == self.program.structure and all(",
        "len(leaves) == len(self.inputs) and all(",
        "test_recording.py::test_arguments_are_known_by_their_names_and_their_structure",
    ),
    "a program keeps memory": Change(
        "xbp/recording/program.py",
        "traced.value = layout_of(traced.value)",
        "pass",
        "test_structure.py::test_what_is_kept_for_later_trainings_keeps_no_array",
    ),
    "recordings of one program share memory": Change(
        "xbp/recording/program.py",
        "copies = {x: type(x)(x.trace, x.value) for x in self._traced}",
        "copies = {x: x for x in self._traced}",
        "test_structure.py::test_a_later_training_learns_as_the_first",
    ),
    "a program is known by its structure alone": Change(
        "xbp/recording/program.py",
        "and all(map(self._fits, leaves, range(len(leaves))))",
        "",
        "test_structure.py::test_a_later_training_learns_as_the_first",
    ),
    "a loop is traced once for all": Change(
        "xbp/training/trainer.py",
        "constants() != constants:",
        "constants() is learn:",
        "test_optimizer_state.py::test_a_factor_that_a_watcher_changes_is_changed",
    ),
    "traced steps are not compared": Change(
        "xbp/training/trial.py",
        "if isfinite(bound) and not difference <= bound:",
        "if isfinite(bound) and difference < 0:",
        "test_trial.py::test_steps_that_are_traced_do_what_is_written",
    ),
    "what is undone stays done": Change(
        "xbp/files/transaction.py",
        "            os.ftruncate(self._descriptor, len(plan) + 1 + len(_PREPARED))\n",
        "",
        "test_file_faults.py::test_a_process_is_killed_while_it_puts_back_what_was_almost_done",
    ),
}

LOCKS = {
    "two replay at once": Change(
        "xbp/recording/recorded.py",
        "        with self._one_at_a_time:\n            for number, recording",
        "        if True:\n            for number, recording",
        "test_recording.py::test_a_replay_is_not_cut_in_two_by_another_thread",
    ),
    "two loop at once": Change(
        "xbp/recording/recorded.py",
        "            with self._one_at_a_time:\n                if last:",
        "            if True:\n                if last:",
        "test_recording.py::test_threads_that_go_on_with_one_state_take_turns",
    ),
    "two make a backend at once": Change(
        "xbp/registry.py",
        "    with _lock:\n        backend = _make",
        "    if True:\n        backend = _make",
        "test_registry.py::test_what_is_registered_while_another_is_made_counts",
    ),
    "one is registered while another is made": Change(
        "xbp/registry.py",
        "    with _lock:\n        _process_factories[name]",
        "    if True:\n        _process_factories[name]",
        "test_registry.py::test_what_is_registered_while_another_is_made_counts",
    ),
    "two train into a folder": Change(
        "xbp/training/checkpoints.py",
        "            lock.acquire(timeout=0)\n",
        "            pass\n",
        "test_checkpoints.py::test_two_trainings_do_not_share_a_folder",
    ),
    "a journal without a name is written": Change(
        "xbp/files/transaction.py",
        "hold(descriptor) is not False and is_at(descriptor, self._path)",
        "hold(descriptor) is not False",
        "test_file_faults.py::test_a_journal_that_another_removed_before_it_was_held_is_not_written_to",
    ),
    "what is being written is swept": Change(
        "xbp/files/transaction.py",
        "        if held_by_us:\n",
        "        if True:\n",
        "test_file_faults.py::test_what_a_process_is_still_writing_is_left_alone",
    ),
}

RECORDED = {
    "numbers from the end are cut off": Change(
        "backends/numpy.py",
        "indices, axis, out)",
        'indices, axis, out, "clip")',
        "test_recording.py::test_a_replay_takes_from_the_end_and_rounds_to_even",
    ),
    "the first result is made twice": Change(
        "xbp/recording/program.py",
        "        _restore(places, before)\n        self.outputs",
        "        self.outputs",
        "test_recording.py::test_any_program_computes_the_same",
    ),
    "what cannot be recorded is half done": Change(
        "xbp/recording/program.py",
        "                _restore(places, before)\n",
        "",
        "test_recording.py::test_what_cannot_be_recorded_leaves_its_arguments_as_they_were",
    ),
}

READ = {
    "every training was interrupted": Change(
        "xbp/cli/train.py",
        '    if result["interrupted"]:\n',
        "    if True:\n",
        "test_cli.py::test_a_training_says_that_it_was_interrupted_if_it_was",
    ),
    "no training was interrupted": Change(
        "xbp/cli/train.py",
        '    if result["interrupted"]:\n',
        "    if False:\n",
        "test_cli.py::test_a_training_says_that_it_was_interrupted_if_it_was",
    ),
    "where the results are is told beside the JSON": Change(
        "xbp/cli/train.py",
        "    if folder and not as_json:\n",
        "    if folder:\n",
        "test_cli.py::test_train_leaves_model_and_figures_in_a_folder",
    ),
    "where the results are is not told": Change(
        "xbp/cli/train.py",
        "    if folder and not as_json:\n",
        "    if not folder:\n",
        "test_cli.py::test_a_training_says_where_its_files_are",
    ),
    "where a training was interrupted is not told": Change(
        "xbp/cli/progress.py",
        " or history.interrupted",
        "",
        "test_progress.py::test_the_last_line_of_an_interrupted_training_is_written",
    ),
    "derivatives do not fade": Change(
        "xbp/graphs/picture.py",
        "max(1 - decades / _DECADES, _FAINTEST)",
        "max(1 - decades * 0, _FAINTEST)",
        "test_graphs.py::test_a_derivative_fades_with_each_power_of_ten",
    ),
    "derivatives fade by the wrong end": Change(
        "xbp/graphs/picture.py",
        "log10(largest / size)",
        "log10(size / largest)",
        "test_graphs.py::test_a_derivative_fades_with_each_power_of_ten",
    ),
}

LAYERS = {
    "a layer that was not run keeps its gradient": Change(
        "xbp/networks/network.py",
        "        forget_gradients(structure.params)  # a layer that is not run now leaves none\n",
        "",
        "test_containers.py::test_a_layer_that_was_not_run_has_no_gradient_of_the_step_before",
    ),
    "a state may be a parameter": Change(
        "xbp/layers/checks.py",
        "            self.part_state_from((*inputs, *",
        "            len((*inputs, *",
        "test_state.py::test_a_state_is_an_array_of_its_own",
    ),
    "what infers changes the state": Change(
        "xbp/networks/network.py",
        "        network = self.for_inference() if self.infers else self\n",
        "        network = self\n",
        "test_state.py::test_a_copy_that_infers_may_be_asked_by_many_threads",
    ),
    "a layer is told apart by value": Change(
        "xbp/layers/tree.py",
        "all(map(is_, layers.values(), others.values()))",
        "all(a == b for a, b in zip(layers.values(), others.values()))",
        "test_containers.py::test_layers_are_told_apart_by_identity",
    ),
    "what goes back goes by key": Change(
        "xbp/training/learner.py",
        '        layers.update(snapshot["layers"])\n',
        "        layers.update(self.network.layers)\n",
        "test_containers.py::test_what_goes_back_goes_to_the_layers_that_it_is_of",
    ),
}

EACH_PROPERTY = "test_testing.py::test_each_property_finds_what_it_is_for"
KIT = {
    "a property is held for layers without parameters alone": Change(
        "xbp/testing/properties.py",
        "    if not trial.case.signature.params:\n",
        "    if trial.case.signature.params:\n",
        EACH_PROPERTY,
    ),
    "float32 is compared with itself": Change(
        "xbp/testing/properties.py",
        'trial.on(trial.backend, "float32")',
        'trial.on(trial.backend, "float64")',
        EACH_PROPERTY,
    ),
    "what is ill-conditioned is a fault": Change(
        "xbp/testing/rounding.py",
        "ROUGHNESS = 2.0\n",
        "ROUGHNESS = 0.0\n",
        "test_accusations.py::test_what_is_ill_conditioned_is_no_fault",
    ),
    "a derivative at a kink is anything": Change(
        "xbp/testing/derivative.py",
        "return comparison.outside or not (",
        "return not (",
        "test_testing.py::test_a_derivative_at_a_kink_lies_between_the_slopes",
    ),
    "a tie is a fault": Change(
        "xbp/testing/derivative.py",
        "if mixes_elements(trial, j, h):",
        "if False:",
        "test_testing.py::test_equal_numbers_that_are_sorted_have_no_derivative",
    ),
    "two maxima may each have the whole": Change(
        "xbp/testing/derivative.py",
        "    require_right_ties(trial, kinks, STEP)\n",
        "",
        "test_testing.py::test_where_two_numbers_tie_their_derivatives_share_the_slope",
    ),
    "a call goes on from the state of the last": Change(
        "xbp/testing/trial.py",
        "        place_state(self.layer, self.state)\n",
        "",
        "test_state.py::test_layers_with_a_state_are_proven",
    ),
    "a staircase is an excuse": Change(
        "xbp/differences.py",
        "outside = outside and certain and _is_far_from_all(claimed, f, first)",
        "outside = False",
        "test_testing.py::test_a_staircase_is_no_excuse",
    ),
    "a backend's layers are not proven": Change(
        "xbp/testing/conformance.py",
        "            assert_gradients(signature, backend=self.backend, max",
        "            dict(signature=signature, backend=self.backend, max",
        "test_conformance.py::test_a_layer_that_is_wrong_there_fails",
    ),
}

CHANGES = DURABILITY | LOCKS | RECORDED | READ | LAYERS | KIT


# Run by a process that has imported what is slow to import and is not changed, so that each change
# costs little more than its test. It prints how each of pytest's runs ended.
RUN = """
import json, os, sys
import array_api_strict, click, hypothesis, numpy, psutil, pytest, rich.progress
ends = []
for folder, tests in json.load(sys.stdin):
    child = os.fork()
    if not child:
        os.chdir(folder)
        sys.path.insert(0, folder)
        os.environ["PYTHONPATH"] = folder
        said = os.open(os.path.join(folder, "said"), os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1), os.dup2(said, 2)
        imported = "-Wignore::pytest.PytestAssertRewriteWarning"
        options = ["-qx", "-p", "no:cacheprovider", "-c", sys.argv[1], imported]
        code = pytest.main([*options, *tests])
        sys.exit(int(code))
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(ends))
"""


def copied(folder: Path) -> Path:
    """Return a folder with a copy of the packages, which is imported there."""
    for package in PACKAGES.values():
        shutil.copytree(Path(str(package.__file__)).parent, folder / package.__name__)
    return folder


def planted(change: Change, folder: Path) -> Path:
    """Return a folder with a copy of the packages, and a change in it."""
    package, _, file = change.file.partition("/")
    path = copied(folder) / PACKAGES[package].__name__ / file
    content = path.read_text()
    assert content.count(change.text) == 1, f"{change.text!r}: there no more, or twice"
    path.write_text(content.replace(change.text, change.replacement))
    return folder


def test_each_change_is_seen(tmp_path: Path) -> None:
    every = {change.test: None for change in CHANGES.values()}
    runs = {"no change": (copied(tmp_path / "0"), list(every))}
    for number, (name, change) in enumerate(CHANGES.items(), start=1):
        runs[name] = (planted(change, tmp_path / str(number)), [change.test])
    asked = [
        (str(folder), [str(TESTS / test) for test in tests]) for folder, tests in runs.values()
    ]
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, PROJECT],
        input=json.dumps(asked), cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    ends = dict(zip(runs, json.loads(found.stdout), strict=True))
    said = {name: (folder / "said").read_text() for name, (folder, _) in runs.items()}
    assert ends.pop("no change") == pytest.ExitCode.OK, said["no change"]
    assert [name for name, end in ends.items() if end == pytest.ExitCode.OK] == []
    for name in ends:  # not that a test could not begin
        assert "1 failed" in said[name], said[name]
