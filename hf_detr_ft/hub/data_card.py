"""The page of a data set on the Hub: metadata that its viewer reads, what is in it, and how to use it."""

from collections import Counter
from collections.abc import Mapping

from huggingface_hub import DatasetCardData

from hf_detr_ft.data.formats.write_data import WholeSplit
from hf_detr_ft.data.formats.write_parquet import HUB_SPLITS
from hf_detr_ft.hub.model_card import escape_markdown
from hf_detr_ft.yaml12 import dump_yaml

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Images, and the Hub's name of a data set of fewer."""


def build_data_card(splits: Mapping[str, WholeSplit], repo_id: str, license: str | None = None) -> str:
    """The card of a data set.

    Args:
        splits: by our names.
        repo_id: "user/name", for the title and the snippets.
        license: the Hub's identifier, such as "cc-by-4.0"; left out unless given.
    """
    images = sum(len(whole.coco["images"]) for whole in splits.values())
    files = [{"split": HUB_SPLITS[split], "path": f"data/{HUB_SPLITS[split]}-*"} for split in splits]
    metadata = DatasetCardData(
        license=license,
        task_categories=["object-detection"],
        size_categories=[next((name for limit, name in SIZES if images < limit), "n>1M")],
        tags=["hf_detr_ft"],
        configs=[{"config_name": "default", "data_files": files}],
    )
    names = {c["id"]: c["name"] for whole in splits.values() for c in whole.coco["categories"]}
    counts = {
        split: Counter(entry["category_id"] for entry in whole.coco["annotations"]) for split, whole in splits.items()
    }
    table = [
        f"| class | {' | '.join(HUB_SPLITS[split] for split in splits)} |",
        f"| --- |{' --- |' * len(splits)}",
        f"| images | {' | '.join(str(len(whole.coco['images'])) for whole in splits.values())} |",
        *(
            f"| {escape_markdown(name)} | {' | '.join(str(counts[split][number]) for split in splits)} |"
            for number, name in names.items()
        ),
    ]
    first = HUB_SPLITS[next(iter(splits))]
    return f"""---
{dump_yaml(metadata.to_dict()).strip()}
---

# {escape_markdown(repo_id.split("/")[-1])}

Images with boxes of {len(names)} class{"es" if len(names) != 1 else ""}; the objects of each:

{chr(10).join(table)}

Boxes (`bbox`) are left, top, width and height in pixels of the upright image; `category` is the place of the class in
the column's list of names.

```python
from datasets import load_dataset

data = load_dataset("{repo_id}")
row = data["{first}"][0]
print(row["image"].size, row["objects"]["bbox"], data["{first}"].features["objects"]["category"].feature.names)
```

```bash
hf-detr-ft train RECIPE --data.root hf://datasets/{repo_id}
```
"""
