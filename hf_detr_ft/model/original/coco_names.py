"""Names of the rows of the original's class heads, which are COCO's category ids with their holes."""

NO_CLASS = "N/A"
"""Name of an id that COCO does not use, as in the original's notebooks."""
THINGS = (
    *("N/A", "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "N/A", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "N/A", "backpack", "umbrella", "N/A", "N/A", "handbag", "tie"),
    *("suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove"),
    *("skateboard", "surfboard", "tennis racket", "bottle", "N/A", "wine glass", "cup", "fork", "knife", "spoon"),
    *("bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake"),
    *("chair", "couch", "potted plant", "bed", "N/A", "dining table", "N/A", "N/A", "toilet", "N/A", "tv", "laptop"),
    *("mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "N/A"),
    *("book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
"""Names by category id, 0 to 90 (instances_val2017.json)."""
STUFF = {
    **{92: "banner", 93: "blanket", 95: "bridge", 100: "cardboard", 107: "counter", 109: "curtain"},
    **{112: "door-stuff", 118: "floor-wood", 119: "flower", 122: "fruit", 125: "gravel", 128: "house", 130: "light"},
    **{133: "mirror-stuff", 138: "net", 141: "pillow", 144: "platform", 145: "playingfield", 147: "railroad"},
    **{148: "river", 149: "road", 151: "roof", 154: "sand", 155: "sea", 156: "shelf", 159: "snow", 161: "stairs"},
    **{166: "tent", 168: "towel", 171: "wall-brick", 175: "wall-stone", 176: "wall-tile", 177: "wall-wood"},
    **{178: "water-other", 180: "window-blind", 181: "window-other", 184: "tree-merged", 185: "fence-merged"},
    **{186: "ceiling-merged", 187: "sky-other-merged", 188: "cabinet-merged", 189: "table-merged"},
    **{190: "floor-other-merged", 191: "pavement-merged", 192: "mountain-merged", 193: "grass-merged"},
    **{194: "dirt-merged", 195: "paper-merged", 196: "food-other-merged", 197: "building-other-merged"},
    **{198: "rock-merged", 199: "wall-other-merged", 200: "rug-merged"},
}
"""Names by category id (panoptic_val2017.json)."""
COCO_IDS = [category_id for category_id, name in enumerate(THINGS) if name != NO_CLASS]
"""The 80 ids of COCO's objects; detectron2's labels 0 to 79 are their places."""


def coco_names(rows: int) -> dict[int, str] | None:
    """Names of so many rows, "no object" aside, as the original's heads have them; None of other heads."""
    if rows == len(THINGS):
        return dict(enumerate(THINGS))
    if rows == len(COCO_IDS):
        return {label: THINGS[category_id] for label, category_id in enumerate(COCO_IDS)}
    if rows == 250:
        return {label: (dict(enumerate(THINGS)) | STUFF).get(label, NO_CLASS) for label in range(rows)}
    return None
