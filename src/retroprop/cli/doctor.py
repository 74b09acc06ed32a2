"""`retroprop doctor`: what this machine has, and what is slower and why."""

from rich.console import Console

from retroprop.cli.parsing import Parser


def run(arguments: list[str]) -> int:
    """Print versions, device, compiler and data."""
    parser = Parser(
        prog="retroprop doctor",
        description="Show versions, device, compiler and data, and what is slower and why.",
    )
    parser.add_argument("--data-root", default=None, help="folder that holds MNIST/ and friends")
    root = parser.parse_args(arguments).data_root
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
    for text in slower:
        console.print(f"- {text}", soft_wrap=True, markup=False)
    return 0
