"""`retroprop doctor`: what this machine has, and what is slower and why."""

from rich.console import Console

from retroprop.cli.parsing import Parser


def run(arguments: list[str]) -> int:
    """Print versions, device, compiler and data."""
    parser = Parser(
        prog="retroprop doctor",
        description="Show versions, device, compiler and data, and what is slower and why.",
    )
    parser.add_argument("--quick", action="store_true", help="measure nothing")
    parser.add_argument("--data-root", default=None, help="folder that holds MNIST/ and friends")
    given = parser.parse_args(arguments)
    root = given.data_root
    import torch

    from retroprop.data.sources import data_names, data_root, load
    from retroprop.ensemble.planner import has_compiler
    from retroprop.errors import DataMissing
    from retroprop.study.checks import free_memory, machine

    console = Console(highlight=False)
    for name, value in machine().items():
        console.print(f"{name:<12} {value}")
    console.print(f"{'memory':<12} {free_memory(None) / 2**30:.1f} GiB for training")
    slower = []
    compiler = has_compiler()
    console.print(f"{'compiler':<12} {'found' if compiler else 'not found'}")
    if not compiler:
        slower.append("No C++ compiler (g++ or clang++): steps run eager, several times slower. Install one.")
    if not torch.cuda.is_available():
        slower.append("No CUDA device: large networks train on the CPU.")
    for name in data_names():
        try:
            data = load(name, root)
            console.print(f"{name:<12} {len(data.labels):,} images")
        except DataMissing as error:
            console.print(f"{name:<12} not found in {data_root(root)}")
            slower.append(str(error))
    if not given.quick:
        _print_break_even(console)
    for text in slower:
        console.print(f"- {text}", soft_wrap=True, markup=False)
    return 0


def _print_break_even(console: Console) -> None:
    """How much faster a sparse backward pass is here, by width and share kept."""
    from rich.table import Table

    from retroprop.sparse.break_even import SHARES, speed_ups

    table = Table(
        title="Sparse backward pass of a linear layer, one thread, batch 256: times as fast as the dense one",
        title_justify="left",
    )
    table.add_column("units")
    for share in SHARES:
        table.add_column(f"{100 * share:g} % kept", justify="right")
    for width, ratios in speed_ups().items():
        cells = [f"{ratio:.1f}" if ratio >= 1 else f"[dim]{ratio:.1f}[/dim]" for ratio in ratios.values()]
        table.add_row(f"{width} x {width}", *cells)
    console.print(table)
