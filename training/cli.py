"""The `training` command: make and measure encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.console import run
from search.settings import load_settings
from training.adapt_command import adapt_command
from training.evaluate_command import evaluate_command
from training.layer_commands import shrink_command, swap_command
from training.mine_command import mine_command
from training.run_commands import average_command, export_command, plan_command, run_command
from training.static_command import static_command
from training.synthesize_command import synthesize_command
from training.vocabulary_command import extend_command, tokens_command, trim_command

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Make and judge encoders.")


@app.callback()
def _group() -> None:
    """Keep the subcommands."""


@app.command()
def offsets(
    bitext: Annotated[
        list[Path], typer.Argument(help="JSONL(.gz) files of rows with `langs` and `texts`", exists=True)
    ],
    out: Annotated[Path, typer.Option(help="where to write the offsets (safetensors)")],
    questions: Annotated[list[Path], typer.Option(help="JSONL(.gz) files with `query`, `positive` (repeat)")] = [],  # noqa: B006
    encoder: Annotated[str, typer.Option(help="built-in name, folder or hub id")] = "",
    per_language: Annotated[int, typer.Option(min=10, help="pairs of each language")] = 200,
    per_file: Annotated[int, typer.Option(min=10, help="questions of each file")] = 200,
) -> None:
    """Measure an encoder's language offsets and query shift: the prior of the language balance."""
    from search.encoder import load_encoder
    from training.language_offsets import measure_offsets, sample_pairs, sample_questions

    settings = load_settings(encoder=encoder or None)
    loaded = load_encoder(settings.encoder, threads=settings.threads, cache_dir=settings.encoders_folder)
    pairs = sample_pairs(bitext, per_language=per_language)
    measured = measure_offsets(loaded, pairs, sample_questions(questions, per_file=per_file))
    measured.save(out)
    print(f"{out}: {len(measured.languages)} languages, encoder {loaded.name} ({loaded.fingerprint})")


app.command("run")(run_command)
app.command("plan")(plan_command)
app.command("mine")(mine_command)
app.command("synthesize")(synthesize_command)
app.command("average")(average_command)
app.command("swap")(swap_command)
app.command("export")(export_command)
app.command("evaluate")(evaluate_command)
app.command("adapt")(adapt_command)
app.command("tokens")(tokens_command)
app.command("trim")(trim_command)
app.command("shrink")(shrink_command)
app.command("extend")(extend_command)
app.command("static")(static_command)


def main() -> None:
    """Run the command."""
    run(app)


if __name__ == "__main__":
    main()
