"""Back-propagation as the 1986 paper writes it, in NumPy and apart from the package.

Weights are `(out, in)`, cases are rows. Names are those of `MLP`'s parameters.

Source: Rumelhart, Hinton & Williams 1986, eq. 1-9.
"""

import numpy as np

Arrays = dict[str, np.ndarray]


def layer_names(weights: Arrays) -> list[str]:
    """Names of the layers from the first hidden one to the output."""
    hidden = sum(name.startswith("hidden.") for name in weights) // 2
    return [f"hidden.{i}.linear" for i in range(hidden)] + ["output.linear"]


def activities(weights: Arrays, inputs: np.ndarray, direct_links: bool = False) -> list[np.ndarray]:
    """What every layer receives, in order, and last what the output units say."""
    names = layer_names(weights)
    received = [inputs]
    for name in names:
        y_in = received[-1]
        if name == "output.linear" and direct_links and len(names) > 1:
            y_in = received[-1] = np.concatenate((y_in, inputs), axis=1)
        # eq. 1, the bias being a weight from a unit that is always on
        x = y_in @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        received.append(1 / (1 + np.exp(-x)))  # eq. 2
    return received


def error(weights: Arrays, inputs: np.ndarray, d: np.ndarray, direct_links: bool = False) -> float:
    """Eq. 3."""
    return float(0.5 * np.sum((activities(weights, inputs, direct_links)[-1] - d) ** 2))


def gradient(weights: Arrays, inputs: np.ndarray, d: np.ndarray, direct_links: bool = False) -> Arrays:
    """The derivative of the error by every weight, accumulated over all cases."""
    received = activities(weights, inputs, direct_links)
    found: Arrays = {}
    error_by_y = received[-1] - d  # eq. 4
    for i, name in reversed(list(enumerate(layer_names(weights)))):
        y = received[i + 1][:, : len(weights[f"{name}.bias"])]
        error_by_x = error_by_y * y * (1 - y)  # eq. 5
        found[f"{name}.weight"] = error_by_x.T @ received[i]  # eq. 6
        found[f"{name}.bias"] = error_by_x.sum(axis=0)  # eq. 6 with y_i = 1
        error_by_y = error_by_x @ weights[f"{name}.weight"]  # eq. 7
        if i:  # what goes back along direct links ends at the input
            error_by_y = error_by_y[:, : len(weights[f"hidden.{i - 1}.linear.bias"])]
    return found


def descend(
    weights: Arrays, slope: Arrays, change: Arrays, epsilon: float, alpha: float
) -> tuple[Arrays, Arrays]:
    """Eq. 9, which is eq. 8 at alpha = 0: the new weights and their last change."""
    change = {name: -epsilon * slope[name] + alpha * change[name] for name in weights}
    return {name: weights[name] + change[name] for name in weights}, change


def at_rest(weights: Arrays) -> Arrays:
    """The last change before the first sweep."""
    return {name: np.zeros_like(w) for name, w in weights.items()}
