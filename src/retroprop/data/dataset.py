"""A data set in memory, and its stratified split by seed."""

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from retroprop.errors import RetropropError
from retroprop.randomness import Seed, permutation


@dataclass(frozen=True)
class Dataset:
    """Labelled images of one size.

    images: uint8 `(image, height, width)` or `(image, channel, height, width)`; divided by `scale` they lie
        in [0, 1].
    labels: int64 `(image,)`.
    sizes: images that train, validate and test.
    official_test: images at the end that are the test set in every split; 0 when each seed draws one.
    about: what a reader must know of the images, in one sentence.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: int
    scale: float
    sizes: tuple[int, int, int]
    official_test: int
    about: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        height, width = self.images.shape[-2:]
        return (self.images[0].numel() // (height * width), height, width)

    @property
    def features(self) -> int:
        """Pixels of one image."""
        return self.images[0].numel()

    @property
    def chance(self) -> float:
        """Accuracy of always naming the commonest class."""
        return float(self.labels.bincount().max()) / len(self.labels)

    def fingerprint(self) -> str:
        """A hash of every image, label and split size."""
        digest = hashlib.blake2b(repr((self.name, self.sizes, self.scale)).encode(), digest_size=16)
        digest.update(self.images.cpu().numpy().tobytes())
        digest.update(self.labels.cpu().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device) -> "Dataset":
        """The data set with images and labels on a device; as bytes, so that it is small there."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class Split:
    """Indices of one seed's images: int64 `(case,)` each."""

    train: Tensor
    validation: Tensor
    test: Tensor


def split(data: Dataset, seed: Seed) -> Split:
    """The stratified split that a seed draws; the arms of a seed share it.

    Every class is spread over the parts in proportion, to within one image.
    """
    train_size, validation_size, test_size = data.sizes
    labels = data.labels.cpu()
    pool = torch.arange(len(labels) - data.official_test)
    if len(pool) < train_size + validation_size + (0 if data.official_test else test_size):
        raise RetropropError(
            f"{data.name} has {len(pool)} images to split; {data.sizes} were asked for. Ask for fewer."
        )
    shuffled = pool[permutation(len(pool), seed, "split")]
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = [train_size, validation_size, 0 if data.official_test else test_size]
    sizes.append(len(pool) - sum(sizes))
    shares = _shares(labels[pool].bincount(), torch.tensor(sizes))
    pieces = torch.split(by_class, shares.flatten().tolist())
    train, validation, test = (torch.cat(pieces[i :: len(sizes)]).sort().values for i in range(3))
    if data.official_test:
        test = torch.arange(len(pool), len(labels))
    return Split(train, validation, test)


def _shares(classes: Tensor, sizes: Tensor) -> Tensor:
    """Images of each class in each part `(class, part)`: proportions, rounded down or up.

    What rounding down leaves of a class goes to the parts that lack most, one image each; such a table
    with the right sums always exists (Gale 1957, Ryser 1957).
    """
    counts = classes.unsqueeze(1) * sizes // sizes.sum()
    for k, missing in enumerate((classes - counts.sum(1)).tolist()):
        lacking = (sizes - counts.sum(0)).argsort(descending=True, stable=True)
        counts[k, lacking[:missing]] += 1
    return counts
