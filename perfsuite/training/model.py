"""The tutorial's network, built from a cfg."""

from torch import nn

from perfsuite.training.cfg import HEAD_WIDTH, Cfg, check_cfg, check_positive


def build_model(cfg: Cfg, classes: int = 10) -> nn.Sequential:
    """Return the network that `cfg` describes, or raise CfgError.

    It takes images of shape (batch, in_channels of row 0, height, width) and returns logits
    of shape (batch, classes).
    """
    rows = check_cfg(cfg)
    classes = check_positive("classes", classes)
    layers: list[nn.Module] = []
    for in_channels, out_channels, kernel_size, stride, padding in rows:
        layers += [
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        ]
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(rows[-1][1], HEAD_WIDTH),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(HEAD_WIDTH, HEAD_WIDTH),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(HEAD_WIDTH, classes),
    )
