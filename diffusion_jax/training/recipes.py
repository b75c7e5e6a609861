"""Recipes: finding them, turning their parameters into flags, and `recipe.json`."""

import dataclasses
import difflib
import functools
import importlib.metadata
import importlib.util
import inspect
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from diffusion_jax.data.files import write_atomically
from diffusion_jax.training.task import Task

Recipe = Callable[..., Task]
_PACKAGES = ("diffusion_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class RunMismatch(ValueError):
    """A run folder was made with other arguments."""


def find_recipe(name: str) -> Path:
    """configs/NAME.py in the working directory, or the file itself.

    Raises:
        FileNotFoundError: no such recipe; names the nearest ones.
    """
    path = Path(name)
    if path.suffix != ".py":
        path = Path("configs") / f"{name}.py"
    if path.is_file():
        return path
    known = sorted(p.stem for p in Path("configs").glob("*.py"))
    close = difflib.get_close_matches(path.stem, known, n=1, cutoff=0.5)
    hint = f" Did you mean configs/{close[0]}.py?" if close else ""
    listed = f" There are {', '.join(known)}." if known else " There is no configs/ folder here."
    raise FileNotFoundError(f"no recipe at {path}.{hint}{listed}")


def load_recipe(path: Path) -> Recipe:
    """The function `recipe` of a file, which is executed.

    Raises:
        ValueError: the file has no such function.
    """
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    recipe = getattr(module, "recipe", None)
    if not callable(recipe):
        raise ValueError(f"{path} has no function called recipe, so it isn't a recipe.")
    return recipe


def parse(recipe: Recipe, options: type, argv: Sequence[str], prog: str) -> tuple[dict, Any]:
    """The recipe's arguments and the command's own options, from one command line.

    Both become flags on one level. A misspelt flag ends the program with a suggestion.
    """
    import tyro

    @functools.wraps(recipe)
    def arguments(**values):
        return values

    def both(
        recipe: Annotated[dict, tyro.conf.arg(constructor=arguments, name="")],
        run: Annotated[options, tyro.conf.arg(name="")],  # type: ignore[valid-type]
    ):
        return recipe, run

    description = (inspect.getdoc(recipe) or "").split("\nArgs:")[0].strip()
    return tyro.cli(both, args=list(argv), prog=prog, description=description)


@dataclasses.dataclass(frozen=True)
class Record:
    """What `recipe.json` holds: which recipe made a run, with what arguments, on what.

    Attributes:
        recipe: the name of a file in configs/, or the path that was given.
        arguments: of the recipe.
        versions: of the packages.
        commit: of the working tree, "" outside a checkout.
    """

    recipe: str
    arguments: dict[str, Any]
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    commit: str = ""

    @classmethod
    def of(cls, path: Path, arguments: dict[str, Any]) -> "Record":
        name = path.stem if path.parent == Path("configs") else str(path)
        # Tuples and paths as the file will give them back.
        plain = json.loads(json.dumps(arguments, default=os.fspath))
        versions = {p: importlib.metadata.version(p) for p in _PACKAGES if _installed(p)}
        return cls(name, plain, versions, _commit())

    def save(self, run_dir: Path) -> None:
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        write_atomically(run_dir / "recipe.json", text.encode())

    @classmethod
    def load(cls, run_dir: Path) -> "Record":
        """Reads `recipe.json`.

        Raises:
            FileNotFoundError: the folder isn't a run.
            ValueError: the file is damaged.
        """
        path = run_dir / "recipe.json"
        if not path.is_file():
            raise FileNotFoundError(f"{run_dir} is no run folder: it has no recipe.json.")
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged: {error}.") from None

    def rebuild(self) -> Task:
        """The Task, by the recipe of this name in the user's own configs/.

        A run folder is data: a path in it is never executed.

        Raises:
            ValueError: the recipe isn't in configs/, or takes other arguments today.
        """
        if Path(self.recipe).name != self.recipe or self.recipe.endswith(".py"):
            raise ValueError(
                f"this run was made by {self.recipe}, which isn't in configs/; if you trust "
                "that file, copy it there and name it with --recipe."
            )
        return build(load_recipe(find_recipe(self.recipe)), self.arguments, self.recipe)


def build(recipe: Recipe, arguments: dict[str, Any], name: str) -> Task:
    """Calls the recipe with arguments that came from JSON."""
    known = inspect.signature(recipe).parameters
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ValueError(
            f"the recipe {name} has no argument {unknown[0]!r}, which this run was made with."
        )
    hints = get_type_hints(recipe)
    return recipe(**{k: _as_was(v, hints.get(k)) for k, v in arguments.items()})


def _as_was(value: Any, hint: Any) -> Any:
    """A value of JSON as the recipe takes it: lists are tuples, and strings may be paths."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and Path in (hint, *get_args(hint)):
        return Path(value)
    return value


def differences(old: Record, new: Record) -> dict[str, tuple[Any, Any]]:
    """What differs between two records' recipe and arguments: name -> (old, new)."""
    before = {"recipe": old.recipe, **old.arguments}
    after = {"recipe": new.recipe, **new.arguments}
    names = dict.fromkeys([*before, *after])
    return {n: (before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)}


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _commit() -> str:
    try:
        found = subprocess.run(
            ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent,
        )
    except OSError:
        return ""
    return found.stdout.strip()
