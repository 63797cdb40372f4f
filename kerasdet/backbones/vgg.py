"""VGG16 as SSD uses it (Simonyan and Zisserman 2014, arXiv 1409.1556; Liu et al. 2016, section 3)."""

import keras
from keras import applications, layers

from kerasdet.backbones.common import application, copy_weights, settle

_RGB_MEAN = (123.68, 116.779, 103.939)  # of ImageNet, what Keras' VGG16 was trained with


def vgg16(weights=None, image_size: int | None = 300, freeze_until: str | None = None) -> keras.Model:
    """VGG16 without its classifier, of which the first two layers have become convolutions.

    The fifth pool no longer halves the map; fc6 is a 3x3 convolution with holes (dilation 6), which sees
    as much of the photo as before, and fc7 a 1x1 one. Pools round up, so a 75x75 map becomes 38x38.
    The paper takes fc6 and fc7 from the ImageNet classifier's, thinned out; here they start from random.

    Args:
        weights: None, "imagenet" (Keras downloads them), the path of a `.weights.h5` file of
            `keras.applications.VGG16` with include_top=False, or a detector on this network.
        image_size: side of the square input in pixels, of any number, or None.
        freeze_until: "P2".."P5" or a layer name: it and everything that feeds it is not trained.

    Returns:
        A flat `keras.Model`: float32 RGB in 0..255 to {"P2": conv3_3, "P3": conv4_3, "P4": conv5_3,
        "P5": fc7} at strides 4, 8, 16 and 16.
    """
    is_detector = isinstance(weights, keras.Model)
    source = application(applications.VGG16, None if is_detector else weights, "vgg16")
    image = keras.Input((image_size, image_size, 3), dtype="float32", name="image")
    x = layers.Rescaling(1.0, offset=[-mean for mean in _RGB_MEAN], name="normalise")(image)
    outputs, copies = {}, []
    for layer in source.layers[1:]:
        config = layer.get_config()
        if isinstance(layer, layers.MaxPooling2D):
            config["padding"] = "same"
            if layer.name == "block5_pool":
                config |= {"pool_size": (3, 3), "strides": (1, 1)}
        copy = type(layer).from_config(config)
        outputs[layer.name] = x = copy(x)
        copies.append((layer, copy))
    x = layers.Conv2D(1024, 3, padding="same", dilation_rate=6, activation="relu", name="fc6")(x)
    x = layers.Conv2D(1024, 1, activation="relu", name="fc7")(x)
    for layer, copy in copies:
        values = layer.get_weights()
        if layer.name == "block1_conv1":
            # The weights want BGR; turning the first kernel costs nothing on a phone.
            values[0] = values[0][:, :, ::-1]
        copy.set_weights(values)
    levels = {
        "P2": outputs["block3_conv3"], "P3": outputs["block4_conv3"], "P4": outputs["block5_conv3"], "P5": x,
    }
    model = keras.Model(image, levels, name="vgg16")
    if is_detector:
        copy_weights(weights, model)
    return settle(model, freeze_until)
