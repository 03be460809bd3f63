"""The auxiliary head."""

from torch import Tensor, nn

from ..arch.layers import Conv, Norm, ReLU, Size
from ..errors import ConfigError
from .layers import Chain, State


class AuxiliaryHead(nn.Module):
    """A classifier on the map before the last reduction, at two thirds of the depth, used in training only
    (NASNet paper, appendix A.7). The size of its second convolution is that of the map it was made for."""

    def __init__(self, channels: int, size: Size, num_classes: int, eps: float) -> None:
        super().__init__()
        kernel = ((size[0] - 5) // 3 + 1, (size[1] - 5) // 3 + 1)
        self.size, self.least = size, tuple(3 * (n - 1) + 5 for n in kernel)
        self.pool = nn.AvgPool2d(5, 3)
        self.project = Chain((Conv("conv", channels, 128, (1, 1)), Norm("bn", 128), ReLU("relu")), eps)
        self.reduce = Chain((Conv("conv", 128, 768, kernel, valid=True), Norm("bn", 768), ReLU("relu")), eps)
        self.num_features = 768
        self.classifier = nn.Linear(self.num_features, num_classes)

    def forward(self, state: State) -> Tensor:
        if state.relu.shape[2] < self.least[0] or state.relu.shape[3] < self.least[1]:
            raise ConfigError(
                f"the auxiliary head was made for maps of {self.size} and gets {tuple(state.relu.shape[2:])}: train on "
                f"larger pictures, by a recipe without `sizes`, or set aux_size to the size of the maps"
            )
        x = self.reduce(State(self.project(State(self.pool(state.relu)))))
        return self.classifier(x.mean((2, 3)))
