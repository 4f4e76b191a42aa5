"""Mixtures: T0's as published, the rule of the cap, and what may not be mixed."""

import time
from fractions import Fraction
from pathlib import Path

import pytest

from megatron.basics.errors import UserError
from megatron.prompting.mixture import read_held_out, read_mixture, template_cap
from megatron.prompting.mixture_file import SHIPPED
from megatron.prompting.same_examples import share_examples
from megatron.prompting.template import Template, short_repr

# Sanh et al. 2022, table of appendix D, and Wang et al. 2022, section 3.4.
PROMPTS = {
    "copa": 12,
    "hellaswag": 4,
    "story_cloze": 5,
    **dict.fromkeys(("anli_r1", "anli_r2", "anli_r3"), 15),
    "cb": 15,
    "rte": 10,
    "wsc": 10,
    "winogrande": 5,
    "wic": 10,
}


def test_t0s_mixtures_grow_and_what_they_train_on_is_no_longer_held_out() -> None:
    t0, plus, plus_plus = (read_mixture(name) for name in ("t0", "t0_plus", "t0_plus_plus"))
    assert [len(mixture.data_sets) for mixture in (t0, plus, plus_plus)] == [38, 48, 54]
    assert plus_plus.data_sets[:48] == plus.data_sets and plus.data_sets[:38] == t0.data_sets
    assert {task.name for task in t0.held_out} == PROMPTS.keys()
    assert {task.name for task in t0.held_out} - {task.name for task in plus.held_out} == {"hellaswag"}
    assert {task.name for task in plus.held_out} - {task.name for task in plus_plus.held_out} == {"copa", "wsc", "wic"}


def test_the_held_out_tasks_are_those_of_the_study() -> None:
    tasks = read_held_out("t0_held_out")
    assert {task.name: task.prompts for task in tasks} == PROMPTS
    assert round(float(100 * sum(task.random for task in tasks) / len(tasks)), 2) == 41.67
    assert {task.split for task in tasks if task.path != "anli"} == {"validation"}


@pytest.mark.parametrize(
    ("examples", "templates", "cap"),
    [
        (363_846, 6, 363_846),  # QQP: all of it, for each template
        (500_000, 4, 500_000),
        (560_000, 4, 125_000),  # DBpedia
        (3_600_000, 9, 55_555),  # Amazon polarity
        (3_803_957, 9, 55_555),  # Gigaword
    ],
)
def test_the_cap_is_t0s(examples: int, templates: int, cap: int) -> None:
    assert template_cap(examples, templates) == cap


def template(name: str, is_original_task: bool) -> Template:
    return Template("a/b", name, "x ||| y", None, is_original_task, False, (), name, "")


def mixture(folder: Path, text: str, name: str = "mine.yaml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_mixture_of_ones_own(tmp_path: Path) -> None:
    base = mixture(tmp_path, "data_sets: [{path: a, configuration: b, templates: original}]", "base.yaml")
    own = read_mixture(
        mixture(
            tmp_path, f"extends: {base}\ncap: 100\nheld_out: t0_held_out\ndata_sets: [{{path: c, templates: [z, y]}}]"
        )
    )
    assert [entry.data_set for entry in own.data_sets] == ["a/b", "c"] and own.cap == 100
    known = [template("x", True), template("y", False), template("z", True)]
    assert [found.name for found in own.find("a/b").chosen(known)] == ["x", "z"]
    assert [found.name for found in own.find("c").chosen(known)] == ["z", "y"]
    assert len(read_mixture("t0").find("imdb").chosen(known)) == 3
    with pytest.raises(UserError, match="c has no template 'z'"):
        own.find("c").chosen(known[:2])
    with pytest.raises(UserError, match="has no data set a/c; did you mean a/b"):
        own.find("a/c")
    with pytest.raises(UserError) as told:
        own.check_data_sets(["a/b"], "the folder")
    assert str(told.value).endswith("has c, of which the folder has no templates; leave it out.")


def test_a_held_out_task_takes_the_published_number_of_prompts() -> None:
    task = read_held_out("t0_held_out")[1]
    known = [template(name, True) for name in "abcd"] + [template("other", False)]
    assert [found.name for found in task.chosen(known)] == list("abcd")
    with pytest.raises(UserError, match=r"with 4 prompts, but hellaswag has 3 .*; use promptsource 0\.2\.3"):
        task.chosen(known[1:])
    assert task.random == Fraction(1, 4)


def test_files_that_a_file_names_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks").mkdir()
    mixture(tmp_path, "tasks: [{name: x, path: y, split: dev, prompts: 3, random: 1/2}]", "tasks/held_out.yml")
    mixture(tmp_path, "held_out: held_out.yml\ndata_sets: [{path: a}]", "tasks/base.yaml")
    own = mixture(tmp_path, "extends: tasks/base.yaml\ndata_sets: [{path: b}]")
    leaking = mixture(tmp_path, "extends: tasks/base.yaml\ndata_sets: [{path: y}]", "leaking.yaml")
    for folder, name in ((tmp_path, "mine.yaml"), (tmp_path.parent, own), (tmp_path / "tasks", "../mine.yaml")):
        monkeypatch.chdir(folder)
        found = read_mixture(name)
        assert [entry.data_set for entry in found.data_sets] == ["a", "b"]
        assert [task.name for task in found.held_out] == ["x"]
        with pytest.raises(UserError, match="trains on y, which its held-out tasks are of"):
            read_mixture(leaking)


def test_held_out_tasks_of_ones_own_are_mended_in_their_file(tmp_path: Path) -> None:
    path = mixture(tmp_path, "tasks: [{name: x, path: y, split: dev, prompts: 3, random: 1/2}]")
    with pytest.raises(UserError) as told:
        read_held_out(path)[0].chosen([template("a", True)])
    assert f"has 1 templates of its original task; mend its prompts in {path}, or" in str(told.value)
    assert "promptsource" not in str(told.value)


def test_t0s_tasks_are_held_out_unless_a_mixture_says_otherwise(tmp_path: Path) -> None:
    text = "data_sets: [{path: imdb}]"
    t0 = read_held_out("t0_held_out")
    assert read_mixture(mixture(tmp_path, text)).held_out == t0
    own = mixture(tmp_path, "tasks: [{name: x, path: y, split: dev, prompts: 3, random: 1/2}]", "tasks.yaml")
    assert read_mixture(mixture(tmp_path, f"held_out: {own}\n{text}")).held_out == read_held_out(own)
    released = read_mixture(mixture(tmp_path, "releases: [hellaswag]\ndata_sets: [{path: Rowan/hellaswag}]"))
    assert {task.name for task in t0} - {task.name for task in released.held_out} == {"hellaswag"}
    everything = "[{path: super_glue, configuration: copa}, {path: anli}]"
    none = mixture(tmp_path, f"held_out: none\ndata_sets: {everything}", "none.yaml")
    assert read_mixture(none).held_out == ()
    assert read_mixture(mixture(tmp_path, f"extends: {none}\n{text}")).held_out == ()
    with pytest.raises(UserError, match="trains on super_glue/copa, anli, which"):
        read_mixture(mixture(tmp_path, f"extends: {none}\nheld_out: t0_held_out\n{text}"))


@pytest.mark.parametrize(
    ("one", "other", "do"),
    [
        (("imdb", "plain_text"), ("stanfordnlp/imdb", None), True),
        (("a/reviews", None), ("b/reviews", None), False),
        (("a/Reviews", "x"), ("a/reviews", "x"), True),
        (("glue", "mrpc"), ("glue", "rte"), False),
        (("aps/super_glue", "wsc.fixed"), ("glue", "wnli"), True),
        (("super_glue", "copa"), ("super_glue", "cb"), False),
        (("allenai/winogrande", "winogrande_debiased"), ("winogrande", "winogrande_xl"), True),
        (("story_cloze", "2018"), ("story_cloze", "2016"), True),
        (("cos_e", "v1.11"), ("tau/commonsense_qa", None), True),
        (("super_glue", None), ("super_glue", "copa"), True),
        (("super_glue", "default"), ("aps/super_glue", "copa"), True),
        (("super_glue_copa", None), ("super_glue", "copa"), True),
        (("someone/super-glue-wsc-fixed", "default"), ("super_glue", "wsc.fixed"), True),
        (("nyu-mll/glue", None), ("super_glue", "rte"), True),
        (("glue", None), ("super_glue", "copa"), False),
        (("glue", "mrpc"), ("super_glue", "rte"), False),
        (("super_glue_copa", None), ("super_glue", "cb"), False),
        (("of_ones_own", "default"), ("of_ones_own", "hard"), True),
        (("of_ones_own", "easy"), ("of_ones_own", "hard"), False),
        (("of_another", None), ("of_ones_own", "hard"), False),
    ],
)
def test_data_sets_that_share_examples(one: tuple[str, str | None], other: tuple[str, str | None], do: bool) -> None:
    assert share_examples(one, other) is do and share_examples(other, one) is do


BOMB = "".join(f"a{n}: &a{n} [{','.join(['*a' + str(n - 1 or '')] * 9)}]\n" for n in range(1, 10))


def test_tasks_that_would_share_a_file_or_be_the_same(tmp_path: Path) -> None:
    task = "{name: x, path: y, split: dev, prompts: 3, random: 1/2}"
    with pytest.raises(UserError, match="holds out two tasks named x; leave one out, or rename it"):
        read_held_out(mixture(tmp_path, f"tasks: [{task}, {task.replace('y', 'z')}]"))
    with pytest.raises(UserError, match="holds out dev of y as x and as x2; leave one out"):
        read_held_out(mixture(tmp_path, f"tasks: [{task}, {task.replace('x', 'x2')}]"))
    base = mixture(tmp_path, f"tasks: [{task}]", "tasks.yaml")
    mixture(tmp_path, f"held_out: {base}\ndata_sets: [{{path: a}}]", "base.yaml")
    other = mixture(tmp_path, f"tasks: [{task.replace('x', 'x2')}]", "other.yaml")
    with pytest.raises(UserError, match=r"the mixture .*mine\.yaml holds out dev of y as x and as x2"):
        read_mixture(mixture(tmp_path, f"extends: base.yaml\nheld_out: {other}\ndata_sets: [{{path: b}}]"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "extends: t0\ndata_sets: [{path: super_glue, configuration: copa}]",
            "trains on super_glue/copa, which its held",
        ),
        ("extends: t0\ndata_sets: [{path: anli}]", "trains on anli"),
        (
            "extends: t0\ndata_sets: [{path: glue, configuration: rte}]",
            r"trains on glue/rte \(it shares examples with super_glue/rte\), .* or name super_glue/rte under releases",
        ),
        (
            "extends: t0\ndata_sets: [{path: winogrande, configuration: winogrande_l}]",
            "winogrande/winogrande_l .it sha",
        ),
        ("extends: t0\ndata_sets: [{path: super_glue, configuration: wsc}]", "trains on super_glue/wsc .it shares"),
        ("extends: t0_plus_plus\ndata_sets: [{path: SetFit/rte}]", "trains on SetFit/rte .it shares"),
        ("data_sets: [{path: imdb}, {path: super_glue, configuration: copa}]", "trains on super_glue/copa, which"),
        ("data_sets: [{path: Rowan/hellaswag}]", "trains on Rowan/hellaswag"),
        ("data_sets: [{path: super_glue}]", "trains on super_glue .it shares examples with super_glue/"),
        (
            "data_sets: [{path: super_glue, configuration: default}]",
            "trains on super_glue/default .it shares examples with super_glue/",
        ),
        ("data_sets: [{path: super_glue_copa}]", "trains on super_glue_copa .it shares examples with super_glue/copa"),
        ("extends: t0\nheld_out: t0_held_out\ndata_sets: [{path: x}]", "mixture .* holds out two tasks named copa"),
        ("extends: t0\nheld_out: none\ndata_sets: [{path: x}]", "holds out nothing, but what it extends does"),
        ("held_out: null\ndata_sets: [{path: x}]", "None is neither a YAML file nor one of"),
        (
            "releases: super_glue/copa\ndata_sets: [{path: x}]",
            "releases of the mixture .* is 'super_glue/copa'; give a",
        ),
        ("releases: [{copa: 1}]\ndata_sets: [{path: x}]", r"releases \{'copa': 1\}, which no held-out task"),
        ("data_sets: [{path: x, templates: [a, b, a]}]", "templates of x in .* has a template twice"),
        ("data_sets: [{path: x, path: y}]", "cannot be read as a mixture or a list of tasks: it gives 'path' twice"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\n" + BOMB + "data_sets: *a9", "with its aliases it has more than 1,000,000"),
        ("extends: t0\ndata_sets: [{path: glue, configuration: qqp}]", "has glue/qqp twice"),
        ("extends: t0\nreleases: [imdb]\ndata_sets: [{path: x}]", "releases imdb, which no held-out task is of"),
        ("extends: t1\ndata_sets: [{path: x}]", "t1 is neither a YAML file nor one of t0,"),
        ("data_sets: []", "data_sets of .* is not a list"),
        ("data_sets: [{path: x, weight: 3}]", "has weight, which is not known"),
        ("data_sets: [{path: x, examples: many}]", "examples of x in .* is 'many'"),
        ("data_sets: [{path: x, templates: some}]", "templates of x in .* is 'some'; give all, original"),
        ("data_sets: [{path: 3}]", "is not text"),
        ("data_sets: [{path: /imdb}]", "has a data set with the path '/imdb'"),
        ("data_sets: [{path: a/../b}]", "has a data set with the path 'a/../b'"),
        ("data_sets: [{path: a, configuration: b/c}]", "and the configuration 'b/c'; names have letters"),
        ("extends: t0\nreleases: [[imdb]]\ndata_sets: [{path: x}]", r"releases \['imdb'\], which no held-out task"),
        ("cap: 0\ndata_sets: [{path: x}]", "cap of the mixture .* is 0"),
        ("data_sets: [", "cannot be read"),
        ("- a", "is not a mapping"),
    ],
)
def test_what_may_not_be_mixed(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        read_mixture(mixture(tmp_path, text))


def test_a_mixture_may_not_extend_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with pytest.raises(UserError, match="extends itself"):
        read_mixture(mixture(tmp_path, f"extends: {path}\ndata_sets: [{{path: x}}]"))
    (tmp_path / "a").mkdir()
    mixture(tmp_path, "extends: ../a/mine.yaml\ndata_sets: [{path: x}]", "a/mine.yaml")
    with pytest.raises(UserError, match="extends itself"):
        read_mixture(str(tmp_path / "a" / "mine.yaml"))


@pytest.mark.parametrize(
    ("task", "fault"),
    [
        ("{name: x, path: y, split: z, prompts: 3, random: 4/3}", "random of x"),
        ("{name: x, path: y, split: z, prompts: 3}", "random of x"),
        ("{name: x, path: y, split: z, prompts: 3, random: 1/0}", "random of x in .* is '1/0'"),
        ("{name: x, path: y, split: z, prompts: 3, random: 1e999999999}", "random of x in .* is '1e999999999'"),
        ("{name: x, path: y, split: z, prompts: 3, random: .nan}", "random of x"),
        ("{name: x, path: y, prompts: 3, random: 1/2}", "needs a name, a split"),
        ("{name: x, path: y, split: z, prompts: true, random: 1/2}", "needs a name, a split"),
        ("{name: x, path: y, split: ../../z, prompts: 3, random: 1/2}", r"of the split '../../z'; names have letters"),
        ("{name: ../x, path: y, split: z, prompts: 3, random: 1/2}", r"has a task '../x' of"),
        ("{name: x, path: y, split: z, prompts: 3, random: 1/2, weight: 1}", "has weight"),
    ],
)
def test_faults_of_held_out_tasks(tmp_path: Path, task: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        read_held_out(mixture(tmp_path, f"tasks: [{task}]"))


DIGITS = ("0x" + 4000 * "f", "!!int '0x" + 4000 * "f" + "'", "1" + 300_000 * ":1", "1" + 300_000 * ":1" + ".5")


@pytest.mark.parametrize("digits", DIGITS, ids=["hex", "tagged", "base 60", "base 60 float"])
@pytest.mark.parametrize(
    "text",
    [
        "cap: {}\ndata_sets: [{{path: x}}]",
        "data_sets: [{{path: x, examples: {}}}]",
        "data_sets: [{{path: x, templates: {}}}]",
        "releases: {}\ndata_sets: [{{path: x}}]",
        "releases: [{}]\ndata_sets: [{{path: x}}]",
        "extends: {}\ndata_sets: [{{path: x}}]",
        "held_out: {}\ndata_sets: [{{path: x}}]",
        "tasks: [{{name: x, path: y, split: z, prompts: 3, random: {}}}]",
    ],
)
def test_numbers_without_end(tmp_path: Path, text: str, digits: str) -> None:
    """Python takes quadratic time for those to base 60, and does not print more than 4,300 digits."""
    begun = time.process_time()
    read = read_held_out if text.startswith("tasks") else read_mixture
    with pytest.raises(UserError, match=r"line \d of .*: a number has more than 40 characters; mend the file"):
        read(mixture(tmp_path, text.format(digits)))
    assert time.process_time() - begun < 5


def test_what_only_looks_like_a_number_may_be_long(tmp_path: Path) -> None:
    names = ["0" * 60 + "x", "0x" + 60 * "g", "1e" + "5" * 60 + "-a"]
    own = read_mixture(mixture(tmp_path, f"data_sets: [{{path: x, templates: [{', '.join(names)}]}}]"))
    assert own.data_sets[0].templates == tuple(names)
    quoted = read_mixture(mixture(tmp_path, f"data_sets: [{{path: x, templates: ['{'1' * 60}']}}]"))
    assert quoted.data_sets[0].templates == ("1" * 60,)
    for value in (16**4000, [16**4000], {"cap": 16**4000}):
        assert short_repr(value) == f"of the type {type(value).__name__} with too many digits to print"


@pytest.mark.parametrize(
    ("written", "share"), [("1/3", "1/3"), ("0.25", "1/4"), ("'.5'", "1/2"), ("1", "1"), ("0", "0")]
)
def test_accuracies_of_a_guess(tmp_path: Path, written: str, share: str) -> None:
    task = f"{{name: x, path: y, split: z, prompts: 3, random: {written}}}"
    assert read_held_out(mixture(tmp_path, f"tasks: [{task}]"))[0].random == Fraction(share)


def test_every_file_of_the_package_is_read() -> None:
    for path in SHIPPED.glob("*.yaml"):
        assert read_held_out(path.stem) if path.stem.endswith("held_out") else read_mixture(path.stem)
