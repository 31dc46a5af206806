"""Check the input shapes of architectures."""

from bnn_symm.errors import ConfigError


def image_shape(architecture: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (channel, height, width) of the inputs of an architecture for images.

    Args:
        architecture: Name of the architecture in the message.
        input_shape: Shape of one point.

    Raises:
        ConfigError: If a point does not have these three axes.
    """
    if len(input_shape) != 3:
        raise ConfigError(
            f"architecture.name={architecture} got inputs of shape {input_shape}, expected images "
            "of shape (channels, height, width); for other inputs set architecture.name=mlp"
        )
    channels, height, width = input_shape
    return channels, height, width
