"""What fastnorm does not offer and a network needs, by hand in NumPy: linear, convolution, relu, loss, SGD.

Every layer has `forward`, `backward` and `parameters`, as the layers of fastnorm have.
"""

from __future__ import annotations

import numpy as np

Pairs = list[tuple[np.ndarray, np.ndarray]]


def he_weights(rng: np.random.Generator, shape: tuple[int, int], scale: float, dtype: type) -> np.ndarray:
    """Standard deviation scale * sqrt(2 / fan_in); at scale 1 relu layers keep the variance (He et al. 2015)."""
    return (rng.standard_normal(shape) * scale * np.sqrt(2 / shape[0])).astype(dtype)


class Linear:
    """(N, n_in) to (N, n_out)."""

    def __init__(self, n_in: int, n_out: int, rng: np.random.Generator, scale: float = 1.0, dtype: type = np.float32) -> None:
        self.weight = he_weights(rng, (n_in, n_out), scale, dtype)
        self.bias = np.zeros(n_out, dtype)
        self.dweight, self.dbias = np.zeros_like(self.weight), np.zeros_like(self.bias)
        self._x = np.empty(0, dtype)

    def forward(self, x: np.ndarray) -> np.ndarray:
        self._x = x
        return x @ self.weight + self.bias

    def backward(self, dy: np.ndarray) -> np.ndarray:
        np.matmul(self._x.T, dy, out=self.dweight)
        dy.sum(axis=0, out=self.dbias)
        return dy @ self.weight.T

    def parameters(self) -> Pairs:
        return [(self.weight, self.dweight), (self.bias, self.dbias)]


class Convolution:
    """3x3 with padding 1, (N, H, W, n_in) to (N, H/stride, W/stride, n_out): a linear layer on patches (im2col)."""

    def __init__(
        self, n_in: int, n_out: int, rng: np.random.Generator, stride: int = 1, scale: float = 1.0, dtype: type = np.float32
    ) -> None:
        self.stride = stride
        self.linear = Linear(9 * n_in, n_out, rng, scale, dtype)
        self._shape: tuple[int, ...] = ()

    def _strided(self, padded: np.ndarray, row: int, column: int) -> np.ndarray:
        """The view of the padded image that tap (row, column) of the kernel meets."""
        height, width = padded.shape[1] - 2, padded.shape[2] - 2
        return padded[:, row : row + height : self.stride, column : column + width : self.stride]

    def forward(self, x: np.ndarray) -> np.ndarray:
        n, height, width, n_in = self._shape = x.shape
        padded = np.zeros((n, height + 2, width + 2, n_in), x.dtype)  # np.pad takes a fifth of the time of a small step
        padded[:, 1:-1, 1:-1] = x
        taps = [self._strided(padded, row, column) for row in range(3) for column in range(3)]
        patches = np.concatenate(taps, axis=-1)
        n, height, width, depth = patches.shape
        return self.linear.forward(patches.reshape(-1, depth)).reshape(n, height, width, -1)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        n, height, width, n_in = self._shape
        dpatches = self.linear.backward(dy.reshape(-1, dy.shape[-1])).reshape(*dy.shape[:3], 9, n_in)
        dpadded = np.zeros((n, height + 2, width + 2, n_in), dy.dtype)
        for tap in range(9):
            target = self._strided(dpadded, tap // 3, tap % 3)
            target += dpatches[..., tap, :]
        return dpadded[:, 1:-1, 1:-1]

    def parameters(self) -> Pairs:
        return self.linear.parameters()


class Relu:
    def __init__(self) -> None:
        self._positive = np.empty(0, bool)

    def forward(self, x: np.ndarray) -> np.ndarray:
        self._positive = x > 0
        return np.maximum(x, 0)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return dy * self._positive

    def parameters(self) -> Pairs:
        return []


class GlobalAverage:
    """(N, H, W, C) to (N, C)."""

    def __init__(self) -> None:
        self._shape: tuple[int, ...] = ()

    def forward(self, x: np.ndarray) -> np.ndarray:
        self._shape = x.shape
        return x.mean(axis=(1, 2))

    def backward(self, dy: np.ndarray) -> np.ndarray:
        _, height, width, _ = self._shape
        return np.broadcast_to((dy / (height * width))[:, None, None], self._shape)

    def parameters(self) -> Pairs:
        return []


def softmax_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean loss over the batch, in nats, and its gradient."""
    shifted = logits - logits.max(axis=1, keepdims=True)  # exp of nothing above 0
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = float((np.log(sums[:, 0]) - shifted[rows, labels]).mean())
    dlogits = exponentials / sums
    dlogits[rows, labels] -= 1
    return loss, dlogits / len(labels)


class SGD:
    """Stochastic gradient descent with momentum: v = momentum * v + gradient; value -= rate * v."""

    def __init__(self, parameters: Pairs, rate: float, momentum: float) -> None:
        self.rate, self.momentum = rate, momentum
        self._state = [(value, gradient, np.zeros_like(value)) for value, gradient in parameters]

    def step(self) -> None:
        for value, gradient, velocity in self._state:
            velocity *= self.momentum
            velocity += gradient
            value -= self.rate * velocity
