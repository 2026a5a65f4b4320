"""Face crops: landmark tables, the middle, whole frames, a detector; a missing face is counted, never made up."""

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


def write_table(path, rows):
    """A FacialTracking table: rows of (seconds, success, x centre, y centre), 68 points on a 200 x 100 box."""
    names = ['frame', 'timestamp', 'confidence', 'success', *(f'n_{k}' for k in range(4, 298))]
    names += [f'{axis}_{k}' for axis in 'xy' for k in range(68)] + ['AU01_r']
    lines = [', '.join(names)]
    for number, (seconds, success, x, y) in enumerate(rows):
        points = [x - 100 + 200 * k / 67 for k in range(68)] + [y - 50 + 100 * k / 67 for k in range(68)]
        lines.append(', '.join(map(str, [number, seconds, 0.98, success, *[0.0] * 294, *points, 1.5])))
    path.write_text('\n'.join(lines) + '\n')
    return path


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


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'no landmarks'),
        ('', 'landmarks cannot be read'),
        ('a,b\n1,2\n', "expected x_0 .. x_67 and y_0 .. y_67, found 'nothing' in column 298"),
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
    path.write_text(path.read_text().replace('0.5, 0.98', '0.5, broken'))
    with pytest.raises(MediaError, match='a row is damaged'):
        faces.read_landmarks(path)


def test_senseless_arguments():
    frames = frames_with_spot([None])
    with pytest.raises(ValueError, match="crop 'left' is unknown; the known ones are none, center, landmarks, mtcnn"):
        faces.crop_faces(frames, 'left', path='x')
    with pytest.raises(ValueError, match='needs the table'):
        faces.crop_faces(frames, 'landmarks', path='x')
    with pytest.raises(ValueError, match='needs a detector'):
        faces.crop_faces(frames, 'mtcnn', path='x')
