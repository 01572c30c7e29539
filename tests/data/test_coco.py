import copy
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from hf_detr_ft.data import coco
from hf_detr_ft.data.coco import LabelMap, image_path, read_coco, with_polygon_areas
from hf_detr_ft.data.outlines import Outlines
from hf_detr_ft.data.segmentation_area import Measured, corrected_area, measure_segmentations, segmentation_fault
from hf_detr_ft.errors import DataError

SQUARE = [10.0, 10.0, 110.0, 10.0, 110.0, 110.0, 10.0, 110.0]
VIA_1 = {"a.jpg123": {"filename": "a.jpg", "size": 123, "regions": {"0": {"shape_attributes": {"name": "rect"}}}}}
VIA_2_PROJECT = {"_via_settings": {}, "_via_img_metadata": {"a.jpg1": {"filename": "a.jpg", "size": 1, "regions": []}}}
YOLO = "0 0.5125 0.4336 0.1 0.2\n1 0.25 0.25 .1 .1\n"


def coco_of(*annotations: dict) -> dict:
    return {"images": [], "annotations": list(annotations), "categories": [{"id": 0, "name": "balloon"}]}


def shoelace_area(polygon_px: list[float]) -> float:
    outlines = Outlines.read([[polygon_px]])
    assert outlines is not None
    return float(outlines.areas[0])


def test_outlines_of_a_large_file_are_measured_once(
    tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlines = [[SQUARE], [SQUARE], [[1.0, 2.0]], {"size": [4, 4], "counts": "oops"}, [SQUARE]]
    areas = [1e4, 3.0, 5.0, 5.0, None]
    entries = [
        {"id": number, "segmentation": outline, "area": area}
        for number, (outline, area) in enumerate(zip(outlines, areas, strict=True))
    ]
    path = tmp_path / "large.json"
    path.write_text(json.dumps(coco_of(*entries)))
    expected = read_coco(path)
    assert not cache_folder.exists(), "those of a small file are not kept"
    found = [entry["segmentation"] for entry in expected["annotations"]]
    assert [measured.fault is None for measured in found] == [True, True, False, False, True]
    assert [measured.right_area for measured in found] == [None, 1e4, None, None, 1e4]
    counts = []

    def measure(annotations: list[dict]) -> list[Measured]:
        counts.append(len(annotations))
        return measure_segmentations(annotations)

    monkeypatch.setattr(coco, "KEPT_FROM", 1)
    monkeypatch.setattr(coco, "measure_segmentations", measure)
    assert read_coco(path) == read_coco(path) == expected
    assert counts == [5, 0]
    [kept] = cache_folder.rglob("*.json")
    kept.write_text(kept.read_text()[:-20])
    assert read_coco(path) == expected
    assert counts == [5, 0, 5], "what is damaged is made anew"
    path.write_text(json.dumps(coco_of(*entries[::-1])))
    assert read_coco(path)["annotations"] == expected["annotations"][::-1]
    assert counts == [5, 0, 5, 5], "another file has its own"
    assert read_coco(path, outlines=True)["annotations"] == entries[::-1]


def test_label_map_sorts_sparse_ids_and_maps_both_ways() -> None:
    labels = LabelMap.from_coco(
        {"categories": [{"id": 90, "name": "c"}, {"id": 0, "name": "a"}, {"id": 7, "name": "b"}]}
    )
    assert labels == LabelMap((0, 7, 90), ("a", "b", "c"))
    assert [labels.label(id_) for id_ in (0, 7, 90)] == [0, 1, 2]
    assert [labels.category_id(label) for label in range(len(labels))] == [0, 7, 90]
    assert labels.id2label == {0: "a", 1: "b", 2: "c"}
    assert labels.label2id == {"a": 0, "b": 1, "c": 2}


def test_label_map_names_the_known_ids_when_one_is_unknown() -> None:
    labels = LabelMap((3, 7), ("disc", "box"))
    with pytest.raises(DataError, match=r"category id 4 is unknown; the categories are 3 'disc', 7 'box'"):
        labels.label(4)
    for label in (2, -1):
        with pytest.raises(DataError, match=rf"label {label} is unknown; the labels are 0 to 1: 'disc', 'box'"):
            labels.category_id(label)


def test_label_map_with_one_name_twice_keeps_both_labels() -> None:
    labels = LabelMap((1, 2), ("disc", "disc"))
    assert labels.id2label == {0: "disc", 1: "disc"}
    assert labels.label2id == {"disc": 0}


@pytest.mark.parametrize(
    ("categories", "text"),
    [
        ([], "expected at least one"),
        (None, "expected at least one"),
        ([{"id": True, "name": "a"}], r"categories\[0\]: expected a whole number 'id'"),
        ([{"id": 1, "name": "a"}, {"name": "b"}], r"categories\[1\]: expected"),
        ([{"id": 1, "name": "a"}, None], r"categories\[1\]: expected"),
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], r"categories\[1\]: id 1 is also that of 'a'"),
    ],
)
def test_label_map_refuses_categories_it_cannot_use(categories: object, text: str) -> None:
    with pytest.raises(DataError, match=text):
        LabelMap.from_coco({"categories": categories})


def test_read_coco_returns_the_file_as_it_is(tmp_path: Path) -> None:
    coco = {**coco_of({"id": 1, "anything": None}), "info": {"version": "ü"}}
    file = tmp_path / "a.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(coco, ensure_ascii=False).encode())
    assert read_coco(file) == coco


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(json.dumps(VIA_1), ["VIA 1", "hf-detr-ft convert via", "labels_coco.json"], id="via1"),
        pytest.param(json.dumps(VIA_2_PROJECT), ["VIA 2 project", "hf-detr-ft convert via"], id="via2"),
        pytest.param("[]", ["bare list"], id="empty-list"),
        pytest.param("[[1, 2], null]", ["bare list"], id="list-of-lists"),
        pytest.param(
            '[{"image_id": 1, "bbox": [0, 0, 1, 1]}]', ["bare list of annotations", "'annotations'"], id="list"
        ),
        pytest.param('[{"id": 1, "file_name": "a.jpg"}]', ["bare list of images"], id="image-list"),
        pytest.param(
            '[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}]',
            ["COCO results list", "annotations"],
            id="results",
        ),
        pytest.param('{"version": "5", "shapes": [], "imagePath": "a.jpg"}', ["labelme", "export"], id="labelme"),
        pytest.param('[{"image": "a.jpg", "annotations": []}]', ["CreateML", "export"], id="createml"),
        pytest.param(YOLO, ["YOLO", "export"], id="yolo"),
        pytest.param("<annotation><folder/></annotation>", ["XML", "Pascal VOC"], id="voc"),
        pytest.param("version https://git-lfs.github.com/spec/v1\noid", ["Git LFS", "git lfs pull"], id="lfs"),
        pytest.param('{"a": 1}\n{"a": 2}\n', ["JSON Lines", "line 2, column 1"], id="jsonl"),
        pytest.param(
            '{"images": [],\n "annotations": [{"id', ["truncated", "line 2, column 19", "again"], id="cut-text"
        ),
        pytest.param('{"images": [],\n "annotations": [\n', ["truncated", "line 3, column 1"], id="cut"),
        pytest.param('{"images": [],\n annotations: []}', ["line 2, column 2", "correct it there"], id="syntax"),
        pytest.param(" \n", ["empty file"], id="empty"),
        pytest.param("3.5", ["single value", "a number"], id="number"),
        pytest.param("{}", ["empty object", "no 'images'"], id="empty-object"),
        pytest.param('{"weights": 1}', ["'weights'", "no 'categories'"], id="other-object"),
        pytest.param('{"images": [], "categories": []}', ["incomplete", "add 'annotations'"], id="no-annotations"),
        pytest.param(
            '{"images": {"1": {}}, "annotations": [], "categories": []}',
            ["'images' is an object, not a list"],
            id="dict",
        ),
        pytest.param("[" * 100_000, ["Python cannot hold"], id="nested"),
        pytest.param("1" * 5000, ["Python cannot hold"], id="long-number"),
        pytest.param(b"\xff\xfe{\x00}\x00", ["empty object", "no 'images'"], id="utf16"),
    ],
)
def test_read_coco_says_what_a_file_looks_like(tmp_path: Path, content: str | bytes, words: list[str]) -> None:
    file = tmp_path / "labels.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_coco(file)
    for word in ["labels.json", "expected", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_a_file_in_another_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    coco = {"images": [{"id": 1, "file_name": "café.jpg"}], "annotations": [], "categories": [{"id": 1, "name": "é"}]}
    (tmp_path / "a.json").write_bytes(json.dumps(coco, ensure_ascii=False).encode(encoding))
    assert read_coco(tmp_path / "a.json") == coco


def test_a_file_cut_anywhere_is_called_truncated(tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    text = json.dumps({**coco_of({"id": 1, "area": -1.5e3, "ignore": True, "note": 'é "quoted"'}), "info": None})
    for length in range(1, len(text)):
        file.write_text(text[:length])
        with pytest.raises(DataError, match=r"labels\.json: .* truncated; copy or download it again"):
            read_coco(file)


def test_read_coco_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: expected a COCO JSON, found no such file; check the path"):
        read_coco(tmp_path / "none.json")
    with pytest.raises(DataError, match="cannot read it: Is a directory"):
        read_coco(tmp_path)


def test_outlines_are_measured_while_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_detr_ft.data.coco.CHUNK", 2)
    entries = [{"id": n, "segmentation": [SQUARE], "area": 10_000 if n % 2 else 7} for n in range(5)]
    others = [{"id": 5, "segmentation": [], "area": 7}, {"id": 6, "segmentation": None}, {"id": 7, "area": 3}, 8]
    faulty = {"id": 9, "segmentation": [SQUARE[:4]]}
    file = tmp_path / "a.json"
    file.write_text(json.dumps(coco_of(*entries, *others, faulty)))
    annotations = read_coco(file)["annotations"]
    right = [annotation["segmentation"] for annotation in annotations[:5]]
    assert right == [Measured(None, None if n % 2 else 10_000) for n in range(5)]
    assert annotations[5] == {"id": 5, "segmentation": Measured(), "area": 7}
    assert annotations[6:9] == others[1:]
    assert annotations[9]["segmentation"].fault == "has 4 values in polygon 0, expected an even count of at least 6"
    assert [entry["area"] for entry in with_polygon_areas(coco_of(*annotations[:5]))[0]["annotations"]] == [10_000] * 5


def test_image_path_stays_in_its_folder() -> None:
    assert image_path(Path("photos"), "day/1..2.jpg") == Path("photos/day/1..2.jpg")
    for name in ("/etc/passwd", "../a.jpg", "day/../../a.jpg", "..\\a.jpg", "C:\\a.jpg", "\\\\server\\share\\a.jpg"):
        with pytest.raises(DataError, match="leaves it; write file_name relative"):
            image_path(Path("photos"), name)


def test_areas_that_disagree_are_recomputed_and_the_input_stays() -> None:
    coco = coco_of(
        {"id": 1, "bbox": [10, 10, 100, 100], "segmentation": [SQUARE], "area": 700},
        {"id": 2, "bbox": [10, 10, 100, 100], "segmentation": [SQUARE, [0, 0, 6, 0, 0, 6]], "area": 0},
        {"id": 3, "bbox": [10, 10, 100, 100], "segmentation": [SQUARE]},
        {"id": 4, "bbox": [10, 10, 100, 100], "segmentation": [SQUARE], "area": None},
        {"id": 5, "bbox": [1, 2, 3, 4.5], "area": 99},
        {"id": 6, "bbox": [1, 2, 3, 4.5], "segmentation": []},
    )
    before = copy.deepcopy(coco)
    fixed, written = with_polygon_areas(coco)
    assert coco == before
    assert [annotation["area"] for annotation in fixed["annotations"]] == [10000, 10018, 10000, 10000, 99, 13.5]
    assert written == 5
    assert with_polygon_areas(fixed) == (fixed, 0)
    fixed["annotations"][4]["area"] = 1
    assert coco == before


def test_raster_areas_as_in_coco_are_right() -> None:
    rng = np.random.default_rng(0)
    annotations = []
    for size in (3, 8, 30, 120, 300):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        radii = size * rng.uniform(0.4, 1, 12)
        points = np.stack([350 + radii * np.cos(angles), 350 + radii * np.sin(angles)], axis=1)
        polygons = [points.ravel().tolist()]
        raster = float(coco_mask.area(coco_mask.frPyObjects(polygons, 700, 700))[0])
        assert raster != shoelace_area(polygons[0])
        annotations.append({"id": size, "segmentation": polygons, "area": raster})
    coco = coco_of(*annotations)
    assert with_polygon_areas(coco) == (coco, 0)


def test_parts_that_overlap_and_outlines_that_cross_count_their_pixels_once() -> None:
    crossed = [0.0, 0.0, 100.0, 100.0, 100.0, 0.0, 0.0, 100.0]
    assert shoelace_area(crossed) == 0
    for polygons, pixels in (([SQUARE, SQUARE], 10_000), ([crossed], 5_000)):
        raster = float(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(polygons, 200, 200))))
        assert raster == pytest.approx(pixels, rel=0.03)
        assert corrected_area({"segmentation": polygons, "area": raster}) is None
        assert corrected_area({"segmentation": polygons, "area": 77}) == raster


def test_tolerance_is_half_the_perimeter_or_one_percent() -> None:
    assert corrected_area({"segmentation": [SQUARE], "area": 10_000 + 200}) is None
    assert corrected_area({"segmentation": [SQUARE], "area": 10_000 - 201}) == 10_000
    large = [0, 0, 1000, 0, 1000, 1000, 0, 1000]
    assert corrected_area({"segmentation": [large], "area": 1_010_000}) is None
    assert corrected_area({"segmentation": [large], "area": 1_010_001}) == 1_000_000


def test_rle_areas_and_crowds() -> None:
    mask = np.zeros((20, 30), dtype=np.uint8, order="F")
    mask[5:15, 3:23] = 1
    encoded = coco_mask.encode(mask)
    compressed = {"size": [20, 30], "counts": encoded["counts"].decode()}
    runs = np.diff(np.flatnonzero(np.diff(np.r_[2, mask.ravel(order="F"), 2])))
    plain = {"size": [20, 30], "counts": runs.tolist()}
    for rle in (compressed, plain):
        assert corrected_area({"segmentation": rle, "area": 20}) == 200
        assert corrected_area({"segmentation": rle, "area": 200, "iscrowd": 0}) is None
        assert corrected_area({"segmentation": rle, "area": 20, "iscrowd": 1}) is None


@pytest.mark.parametrize(
    ("segmentation", "text"),
    [
        ("abc", "is str"),
        (["abc"], "has str as polygon 0"),
        ([SQUARE, [1, 2, 3, 4, 5, None]], "polygon 1 that is not a finite number"),
        ([[1, 2, 3, 4, 5, float("nan")]], "not a finite number"),
        ([[1, 2, 3, 4]], "has 4 values"),
        ([[1, 2, 3, 4, 5, 6, 7]], "has 7 values"),
        ({}, "'size'"),
        ({"size": [2, 2], "counts": [1, 2]}, "add up to 3, expected height x width = 4"),
        ({"size": [2, 2], "counts": [1, -1, 4]}, "neither"),
        ({"size": [2, 2], "counts": 4}, "neither"),
        ({"size": [2, 2], "counts": "04\u00e9"}, "not in COCO's encoding"),
        ({"size": [2, 2], "counts": "0oo"}, "not in COCO's encoding"),
    ],
)
def test_faulty_segmentations_are_described_and_not_compared(segmentation: object, text: str) -> None:
    assert text in (segmentation_fault(segmentation) or "")
    assert corrected_area({"segmentation": segmentation, "area": 5}) is None


def test_polygons_far_out_of_any_image_are_not_rasterised() -> None:
    huge = [0, 0, 1e15, 0, 1e15, 1e15, 0, 1e15]
    assert corrected_area({"segmentation": [huge], "area": 5}) == 1e30
    wound = [0, 0, 29_000, 29_000, 29_000, 0, 0, 29_000] * 11
    assert corrected_area({"segmentation": [wound], "area": 5}) is None
    flat = [5, 5, 9, 5, 9, 5]
    assert corrected_area({"segmentation": [flat], "area": 5}) is None


def test_balloon_areas_are_right_after_recomputing(balloon: Path) -> None:
    coco = read_coco(balloon / "annotations" / "custom_val.json")
    fixed, written = with_polygon_areas(coco)
    assert written == 49
    sizes = np.digitize([annotation["area"] for annotation in fixed["annotations"]], [32**2, 96**2])
    assert np.bincount(sizes).tolist() == [3, 17, 30]
    assert LabelMap.from_coco(coco) == LabelMap((0,), ("balloon",))
