"""Face crops: landmark tables, the middle, whole frames, a detector; a missing face is counted, never made up."""

import hashlib

import numpy as np
import pytest

from mmer_jax.media import MediaError, faces


def frames_with_spot(centres, height=72, width=128):
    """Dark frames with a bright 21 x 21 spot about each centre (x, y); None: without."""
    frames = np.zeros((len(centres), height, width, 3), np.uint8)
    for frame, centre in zip(frames, centres, strict=True):
        if centre is not None:
            x, y = centre
            frame[max(y - 10, 0) : y + 11, max(x - 10, 0) : x + 11] = (200, 100, 50)
    return frames


def openface_names():
    """The header of RAVDESS's FacialTracking tables (OpenFace 2): 712 columns, without `success`."""
    xyz = 'xyz'
    names = ['frame', 'timestamp', 'confidence', *(f'gaze_{eye}_{axis}' for eye in (0, 1) for axis in xyz)]
    names += ['gaze_angle_x', 'gaze_angle_y']
    names += [f'eye_lmk_{axis}_{k}' for axis in 'xyXYZ' for k in range(56)]
    names += [f'pose_{kind}{axis}' for kind in 'TR' for axis in xyz]
    names += [f'{axis}_{k}' for axis in 'xyXYZ' for k in range(68)]
    names += ['p_scale', 'p_rx', 'p_ry', 'p_rz', 'p_tx', 'p_ty', *(f'p_{k}' for k in range(34))]
    units = [1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45]
    names += [f'AU{unit:02d}_r' for unit in units]
    return names + [f'AU{unit:02d}_c' for unit in sorted([*units, 28])]


def write_table(path, rows, *, names=None, separator=','):
    """A FacialTracking table: rows of (seconds, seen, x centre, y centre), 68 points on a 200 x 100 box.

    seen: 1 or 0, the column `success` where `names` has it; `confidence` is .98 or .03. All else is 7.
    """
    names = openface_names() if names is None else names
    lines = [separator.join(names)]
    for number, (seconds, seen, x, y) in enumerate(rows):
        cells = {'frame': number + 1, 'timestamp': seconds, 'confidence': 0.98 if seen else 0.03, 'success': seen}
        cells |= {f'x_{k}': x - 100 + 200 * k / 67 for k in range(68)}
        cells |= {f'y_{k}': y - 50 + 100 * k / 67 for k in range(68)}
        lines.append(separator.join(str(cells.get(name, 7)) for name in names))
    path.write_text('\n'.join(lines) + '\n')
    return path


def test_the_header_is_that_of_the_published_tables():
    """Zero-based 297..364 and 365..432 are what CFN-SR's code reads as x and y."""
    names = openface_names()
    assert len(names) == len(set(names)) == 712
    assert names[:4] == ['frame', 'timestamp', 'confidence', 'gaze_0_x']
    assert (names[297], names[364], names[365], names[432]) == ('x_0', 'x_67', 'y_0', 'y_67')
    assert 'success' not in names
    # SHA-256 that a public check of the data set gives for the header of all its 2,452 files; the middle was not kept.
    digest = hashlib.sha256(','.join(names).encode()).hexdigest()
    assert (digest[:8], digest[-6:]) == ('d89e2164', '991b4e')


def test_landmarks_follow_the_face_in_time_and_scale(tmp_path):
    """The table is in 1280 x 720; frames of a tenth of it are cut at a tenth of its numbers."""
    table = write_table(tmp_path / 'a.csv', [(0.0, 1, 300, 200), (0.5, 1, 640, 360), (1.0, 1, 900, 400)])
    boxes = faces.landmark_boxes(table, [0.05, 0.45, 1.0, 1.3], 72, 128)
    expected = [[20, 15, 40, 25], [54, 31, 74, 41], [80, 35, 100, 45]]
    np.testing.assert_allclose(boxes[:3], expected)
    assert np.isnan(boxes[3]).all()  # no row within 0.2 s
    spots = frames_with_spot([(30, 20), (64, 36), (90, 40)])
    cropped, share = faces.crop_faces(spots, 'landmarks', 32, path='x.mp4', times=[0, 0.5, 1], landmarks=table)
    assert (cropped.shape, cropped.dtype, share) == ((3, 32, 32, 3), np.uint8, 1.0)
    assert (cropped == (200, 100, 50)).all()


def test_a_lost_frame_borrows_the_nearest_box_and_is_counted(tmp_path):
    rows = [(0.0, 1, 300, 200), (0.5, 0, 0, 0), (1.0, 0, 0, 0), (1.5, 1, 900, 400)]
    table = write_table(tmp_path / 'a.csv', rows)
    spots = frames_with_spot([(30, 20), (30, 20), (90, 40), (90, 40)])
    cropped, share = faces.crop_faces(spots, 'landmarks', 16, path='x.mp4', times=[0, 0.5, 1, 1.5], landmarks=table)
    assert share == 0.5
    assert (cropped == (200, 100, 50)).all()


def test_filling():
    nan = [np.nan] * 4
    boxes = np.array([nan, nan, [1, 2, 3, 4], nan, nan, nan, [5, 6, 7, 8]])
    filled, found = faces.fill_missing(boxes)
    assert found.tolist() == [False, False, True, False, False, False, True]
    assert filled[:, 0].tolist() == [1, 1, 1, 1, 1, 5, 5]  # the earlier of two equally near


class Fake:
    """A detector that finds the spot of frames_with_spot, and remembers what it was shown."""

    def detect(self, frames):
        self.shape, found = frames.shape, []
        for frame in frames:
            y, x = np.nonzero(frame[..., 0] > 100)
            box = [[x.min(), y.min(), x.max() + 1, y.max() + 1, 0.9]] if len(x) else np.zeros((0, 5))
            found.append(np.array(box, np.float32))
        return found


def test_a_detector():
    spots = frames_with_spot([(30, 20), None, (90, 40)])
    cropped, share = faces.crop_faces(spots, 'mtcnn', 16, path='x.mp4', detector=Fake())
    assert share == pytest.approx(2 / 3)
    assert (cropped[[0, 2]] == (200, 100, 50)).all()
    assert not cropped[1].any()  # the first frame's box in a frame without face


def test_large_frames_are_searched_small_and_cut_whole():
    detector = Fake()
    frames = np.zeros((1, 800, 1280, 3), np.uint8)
    frames[0, 200:400, 600:900] = 255
    frames[0, 300:302, 600:900] = (255, 0, 0)  # a fine line
    cropped, share = faces.crop_faces(frames, 'mtcnn', 200, path='x.mp4', detector=detector)
    assert detector.shape == (1, 400, 640, 3)
    assert share == 1
    assert (cropped[0, 100] == (255, 0, 0)).all()


@pytest.mark.parametrize('crop', ['landmarks', 'mtcnn'])
def test_a_clip_without_any_face_is_refused(tmp_path, crop):
    table = write_table(tmp_path / 'a.csv', [(0.0, 0, 0, 0)])
    with pytest.raises(MediaError, match=r"x.mp4: no face found; crop '(landmarks|mtcnn)' found none in 2 frames"):
        faces.crop_faces(
            frames_with_spot([None, None]), crop, path='x.mp4', times=[0, 0], landmarks=table, detector=Fake()
        )


def test_boxes_outside_the_frame(tmp_path):
    table = write_table(tmp_path / 'a.csv', [(0.0, 1, 0, 0), (0.5, 1, 2000, 2000)])
    spots = frames_with_spot([(0, 0), (0, 0)])
    cropped, share = faces.crop_faces(spots, 'landmarks', 16, path='x.mp4', times=[0, 0.5], landmarks=table)
    assert share == 0.5  # the second lies outside as a whole
    assert (cropped == (200, 100, 50)).all()


def test_the_middle_and_the_whole():
    spots = frames_with_spot([(64, 36)])
    centre, share = faces.crop_faces(spots, 'center', 72, path='x')
    np.testing.assert_array_equal(centre[0], spots[0, :, 28:100])
    whole, _ = faces.crop_faces(spots, 'none', 64, path='x')
    assert (whole.shape, share) == ((1, 64, 64, 3), 1.0)
    assert (whole[0, 32, 32] == (200, 100, 50)).all()
    same = np.random.default_rng(0).integers(0, 255, (2, 24, 24, 3), dtype=np.uint8)
    np.testing.assert_array_equal(faces.crop_faces(same, 'none', 24, path='x')[0], same)


def test_columns_are_found_by_name(tmp_path):
    """In any order, with `success` or without, with blanks (OpenFace writes ', x_0'); another `x` is not x_0."""
    rows = [(0.0, 1, 300, 200), (0.5, 0, 640, 360), (1.0, 1, 900, 400)]
    expected = [[200, 150, 400, 250], [np.nan] * 4, [800, 350, 1000, 450]]
    plain = openface_names()
    older = ['frame', 'timestamp', 'confidence', 'success', *plain[3:]]
    only = [*(f'y_{k}' for k in range(68)), *(f'x_{k}' for k in range(68)), 'confidence', 'timestamp']
    for number, (names, separator) in enumerate(
        [(plain, ','), (plain[::-1], ','), (older, ','), (older, ', '), (older[::-1], ' , '), (only, ',')]
    ):
        path = write_table(tmp_path / f'{number}.csv', rows, names=names, separator=separator)
        seconds, boxes = faces.read_landmarks(path)
        assert seconds.tolist() == [0, 0.5, 1]
        np.testing.assert_allclose(boxes, expected)


def test_success_says_more_than_confidence(tmp_path):
    """A row that OpenFace calls a success counts whatever its confidence; without both columns every row counts."""
    points = [name for name in openface_names() if name[:2] in ('x_', 'y_')]
    rows = [(0.0, 1, 300, 200), (0.5, 0, 640, 360)]
    path = write_table(tmp_path / 'a.csv', rows, names=['timestamp', 'confidence', 'success', *points])
    path.write_text(path.read_text().replace('0.0,0.98,1', '0.0,0.03,1').replace('0.5,0.03,0', '0.5,0.98,0'))
    assert np.isnan(faces.read_landmarks(path)[1]).any(1).tolist() == [False, True]
    path = write_table(tmp_path / 'b.csv', rows, names=['timestamp', *points])
    assert np.isfinite(faces.read_landmarks(path)[1]).all()


def test_rows_that_are_missing_or_hold_no_numbers(tmp_path):
    """Frames without a row borrow a box; a row of NaN, as some trackers write, is a frame without a face."""
    table = write_table(tmp_path / 'a.csv', [(0.0, 1, 300, 200), (1.5, 1, 900, 400), (0.2, 1, np.nan, np.nan)])
    boxes = faces.landmark_boxes(table, [0.0, 0.2, 0.7, 1.5], 72, 128)
    assert np.isnan(boxes).any(1).tolist() == [False, True, True, False]
    spots = frames_with_spot([(30, 20), (30, 20), (90, 40), (90, 40)])
    cropped, share = faces.crop_faces(spots, 'landmarks', 16, path='x', times=[0.0, 0.2, 0.7, 1.5], landmarks=table)
    assert share == 0.5
    assert (cropped == (200, 100, 50)).all()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'no landmarks; the table of the clip is missing'),
        ('', 'landmarks cannot be read; empty file'),
        ('a,b\n1,2\n', "137 of them are missing, such as 'timestamp'; it has 2, first 'a', 'b'"),
        (
            ','.join(openface_names()[:400]) + '\n1\n',
            "33 of them are missing, such as 'y_35'; it has 400, first 'frame'",
        ),
        (','.join(openface_names()) + '\n', 'no row behind the names of the columns'),
        (','.join([*openface_names(), 'x_5']) + '\n1\n', "the column 'x_5' stands there twice"),
        (b'\xff\xfe\x00\x80', 'landmarks cannot be read'),
    ],
)
def test_wrong_tables(tmp_path, content, message):
    path = tmp_path / 'a.csv'
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(MediaError, match=message):
        faces.read_landmarks(path)


def test_a_damaged_row(tmp_path):
    path = write_table(tmp_path / 'a.csv', [(0.0, 1, 300, 200), (0.5, 1, 300, 200)])
    whole = path.read_text()
    path.write_text(whole.replace('0.5,0.98', '0.5,broken'))
    with pytest.raises(MediaError, match="line 3: confidence should be a number, found 'broken'"):
        faces.read_landmarks(path)
    path.write_text(whole[: len(whole) - 3000])
    with pytest.raises(MediaError, match=r'line 3: \w+ should be a number, found a row of \d+ values'):
        faces.read_landmarks(path)
    path.write_text(whole.replace('2,0.5,', '2,inf,'))
    with pytest.raises(MediaError, match='line 3: the timestamp is no finite number'):
        faces.read_landmarks(path)


def test_senseless_arguments():
    frames = frames_with_spot([None])
    with pytest.raises(ValueError, match="crop 'left' is unknown; the known ones are none, center, landmarks, mtcnn"):
        faces.crop_faces(frames, 'left', path='x')
    with pytest.raises(ValueError, match='needs the table'):
        faces.crop_faces(frames, 'landmarks', path='x')
    with pytest.raises(ValueError, match='needs a detector'):
        faces.crop_faces(frames, 'mtcnn', path='x')
