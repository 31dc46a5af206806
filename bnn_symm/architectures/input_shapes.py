"""What an architecture asks of the shape of its inputs."""

from bnn_symm.errors import ConfigError


def image_shape(architecture: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channel, height, width) of the inputs of an architecture for images.

    Raises:
        ConfigError: If a point does not have these three axes.
    """
    if len(input_shape) != 3:
        raise ConfigError(
            f"architecture.name={architecture} got inputs of shape {input_shape}, wants images of "
            "shape (channels, height, width); for anything else type --set architecture.name=mlp"
        )
    channels, height, width = input_shape
    return channels, height, width
