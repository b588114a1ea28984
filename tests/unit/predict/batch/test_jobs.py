"""Job lists: reading, keys and sharding."""

import json
from pathlib import Path

import pytest

from talkinghead.errors import UsageError
from talkinghead.paths import DEMO_SPEECH
from talkinghead.predict.batch.finished_outputs import job_key
from talkinghead.predict.batch.jobs import Job, make_jobs, take_shard
from talkinghead.predict.options import SourceOptions

ROW = {"face": "f", "audio": "a", "output": "o"}


def test_jobs_from_command_line_list_and_csv_file(tmp_path):
    job = Job(Path("f"), Path("a"), Path("o"))
    assert make_jobs("f", "a", "o", None) == [job]
    assert make_jobs(None, None, None, [ROW]) == [job]
    assert make_jobs("f", None, "o", None, "Hi.") == [Job(Path("f"), None, Path("o"), "Hi.")]
    path = tmp_path / "list.csv"
    path.write_bytes(
        '\ufefftext,face,audio,output,note\n,"a, b.jpg", s.wav ,out/1.mp4,x\n'
        '"Hello, you.",/c.png,,2.mp4,\n'.encode()
    )
    # Paths in the CSV file are relative to the folder of the file.
    assert make_jobs(None, None, None, str(path)) == [
        Job(tmp_path / "a, b.jpg", tmp_path / "s.wav", tmp_path / "out/1.mp4"),
        Job(Path("/c.png"), None, tmp_path / "2.mp4", "Hello, you."),
    ]


@pytest.mark.parametrize("output", ["s3://bucket/%05d.png", "memory://frames/a_%d.jpg"])
def test_remote_image_sequence_is_refused_before_any_work(output):
    with pytest.raises(UsageError, match="is written only to local folders"):
        make_jobs("f", "a", output, None)


def test_voice_settings_change_only_keys_of_text_jobs(tmp_path):
    for name in ("face", "speech", "checkpoint"):
        (tmp_path / name).write_text(name)
    jobs = [Job(tmp_path / "face", tmp_path / "speech", Path("o"))]
    jobs += [Job(tmp_path / "face", None, Path("o"), text) for text in ("Hi.", "Ho.")]
    settings = {"checkpoint": str(tmp_path / "checkpoint"), "crf": 18}
    recorded, *spoken = (
        {job_key(job, {**settings, "tts": tts}) for tts in ("joe", "amy")} for job in jobs
    )
    assert len(recorded) == 1
    assert len(recorded.union(*spoken)) == 5


def test_contents_of_the_personalisation_change_the_key(tmp_path):
    for name in ("face", "speech", "checkpoint", "me", "copy"):
        (tmp_path / name).write_text("same")
    job = Job(tmp_path / "face", tmp_path / "speech", Path("o"))
    settings = {"checkpoint": str(tmp_path / "checkpoint")}
    key = job_key(job, {**settings, "personalisation": str(tmp_path / "me")})
    assert key == job_key(job, {**settings, "personalisation": str(tmp_path / "copy")})
    assert key != job_key(job, {**settings, "personalisation": None})
    (tmp_path / "me").write_text("changed")
    assert key != job_key(job, {**settings, "personalisation": str(tmp_path / "me")})


@pytest.mark.parametrize(
    ("setting", "form"), [("pose", "{}"), ("expression", "{}"), ("motion", "video:{}")]
)
def test_contents_of_a_motion_file_change_the_key(tmp_path, setting, form):
    for name in ("face", "speech", "checkpoint", "motion"):
        (tmp_path / name).write_text("same")
    job = Job(tmp_path / "face", tmp_path / "speech", Path("o"))
    settings = {"checkpoint": str(tmp_path / "checkpoint")}
    settings[setting] = form.format(tmp_path / "motion")
    key = job_key(job, settings)
    (tmp_path / "motion").write_text("changed")
    assert key != job_key(job, settings)
    for constant in ([1, 2, 3], {"jawOpen": 0.5}, "speech", None):
        assert job_key(job, {**settings, "pose": None, setting: None, "emotion": constant})


@pytest.mark.parametrize(
    "settings",
    [
        {"background": "{}"},
        {"exclude_face": "{}"},
        {"face_select": [0, "{}"]},
        {"tts": {"voice": "{}"}},
        {"provenance": {"certificate_path": "{}"}},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_contents_of_every_file_in_the_settings_change_the_key(tmp_path, settings):
    for name in ("face", "checkpoint", "named"):
        (tmp_path / name).write_text("same")
    job = Job(tmp_path / "face", None, Path("o"), "Hi.")
    text = json.dumps({"checkpoint": str(tmp_path / "checkpoint"), **settings})
    settings = json.loads(text.replace("{}", str(tmp_path / "named")))
    key = job_key(job, settings)
    assert key == job_key(job, settings)
    (tmp_path / "named").write_text("changed")
    assert key != job_key(job, settings)


def test_files_of_exported_checkpoints_change_the_key(tmp_path):
    for name in ("face", "speech", "export/model.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("same")
    job = Job(tmp_path / "face", tmp_path / "speech", Path("o"))
    settings = {"checkpoint": str(tmp_path / "export")}
    key = job_key(job, settings)
    assert key is not None
    assert key == job_key(job, settings)
    (tmp_path / "export/model.onnx").write_text("longer content")
    assert key != job_key(job, settings)


def test_several_audio_files_and_faces_of_a_job(tmp_path):
    rows = [
        {**ROW, "audio": ["a", "b"], "face_select": [1, "p.jpg", [3, 4]]},
        {**ROW, "output": "o2", "exclude_face": "10x20"},
    ]
    first, second = make_jobs(None, None, None, rows)
    assert first.audio == (Path("a"), Path("b"))
    assert first.locations == (Path("f"), Path("a"), Path("b"), Path("o"))
    assert first.changes == (("face_select", (1, "p.jpg", (3, 4))),)
    assert second.changes == (("exclude_face", ("10x20",)),)
    assert make_jobs("f", ["a", "b"], "o", None)[0].audio == (Path("a"), Path("b"))
    assert make_jobs("f", "a|b", "o", None)[0].audio == Path("a|b")
    path = tmp_path / "list.csv"
    path.write_text("face;audio;output;face_select\nf;a|b;o.mp4;1|me.jpg\nf;c;p.mp4;all\n")
    listed = make_jobs(None, None, None, path)
    assert listed[0].audio == (tmp_path / "a", tmp_path / "b")
    assert listed[0].changes == (("face_select", ("1", str(tmp_path / "me.jpg"))),)
    assert (listed[1].audio, listed[1].changes) == (tmp_path / "c", (("face_select", "all"),))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Largest", "largest"),
        (" ALL ", "all"),
        ("0.0", ("0.0",)),
        (0.0, (0,)),
        ([1.0, " 2"], (1, "2")),
        ("320X180", ("320X180",)),
        ("(320, 180)", ("320x180",)),
        ("[[320,180], 1]", ("320x180", "1")),
        ("[0,[320, 180]]", ("0", "320x180")),
        ("[0,1]", ("0", "1")),
    ],
)
def test_face_select_of_a_job_is_read_in_any_notation(given, expected):
    (job,) = make_jobs(None, None, None, [{**ROW, "face_select": given}])
    assert job.changes == (("face_select", expected),)
    assert SourceOptions(face_select=expected)


def test_indices_in_a_cell_may_be_separated_by_commas(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('face,audio,output,face_select\nf,a,o.mp4,"0, 2"\nf,a,p.mp4,"a,b.jpg"\n')
    first, second = make_jobs(None, None, None, path)
    assert first.changes == (("face_select", ("0", "2")),)
    assert second.changes == (("face_select", (str(tmp_path / "a,b.jpg"),)),)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "list.json",
            '[{"face": "f", "audio": ["a", "b"], "output": "o.mp4", "face_select": 0.0}]',
        ),
        (
            "list.jsonl",
            '{"face": "f", "audio": ["a", "b"], "output": "o.mp4", "face_select": "0"}\n',
        ),
    ],
)
def test_jobs_of_a_json_file(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    (job,) = make_jobs(None, None, None, tmp_path / name)
    assert job.locations == tuple(tmp_path / part for part in ("f", "a", "b", "o.mp4"))
    assert SourceOptions(**dict(job.changes)).chosen_faces[0].value == 0
    (tmp_path / name).write_text(text[:-9])
    with pytest.raises(UsageError, match=rf"{name} cannot be read .*give a JSON list of objects"):
        make_jobs(None, None, None, tmp_path / name)


def test_deeply_nested_json_file_of_jobs_is_an_error(tmp_path):
    (tmp_path / "list.json").write_text("[" * 100_000)
    with pytest.raises(UsageError, match=r"list\.json cannot be read"):
        make_jobs(None, None, None, tmp_path / "list.json")


@pytest.mark.parametrize(
    "values",
    [{"face": ["f"]}, {"audio": [{"a": 1}]}, {"audio": None, "text": True}, {"output": {"o": 1}}],
)
def test_values_of_a_job_that_are_not_text_are_refused(values):
    key = list(values)[-1]
    with pytest.raises(UsageError, match=rf"jobs, job 1: {key}=.*expected text, not a "):
        make_jobs(None, None, None, [{**ROW, **values}])


def test_unknown_face_select_of_a_job_names_the_words():
    (job,) = make_jobs(None, None, None, [{**ROW, "face_select": "larg"}])
    with pytest.raises(
        UsageError, match=r"face_select=larg: .*a photo, or one of the words largest"
    ):
        SourceOptions(**dict(job.changes))


def test_each_file_and_option_of_a_job_changes_its_key(tmp_path):
    for name in ("face", "a", "b", "checkpoint"):
        (tmp_path / name).write_text(name)
    rows = [{"audio": ["a", "b"]}, {"audio": ["b", "a"]}, {"audio": "a"}]
    rows += [{"audio": "a", "face_select": [1]}, {"audio": "a", "exclude_face": 1}]
    settings = {"checkpoint": str(tmp_path / "checkpoint")}
    keys = set()
    for number, row in enumerate(rows):
        files = [str(tmp_path / name) for name in row["audio"]]
        given = {"face": str(tmp_path / "face"), "output": f"{number}.mp4", **row, "audio": files}
        keys.update(job_key(job, settings) for job in make_jobs(None, None, None, [given]))
    assert len(keys - {None}) == len(rows)


def test_contents_of_a_lip_curve_change_the_key(tmp_path):
    for name in ("face", "speech", "checkpoint", "curve"):
        (tmp_path / name).write_text("same")
    job = Job(tmp_path / "face", tmp_path / "speech", Path("o"))
    lip_prior = {"_target_": "LipCurve", "path": str(tmp_path / "curve")}
    settings = {"checkpoint": str(tmp_path / "checkpoint"), "lip_prior": lip_prior}
    key = job_key(job, settings)
    (tmp_path / "curve").write_text("changed")
    assert key != job_key(job, settings)
    assert job_key(job, {**settings, "lip_prior": None})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("f", None, None, None), "audio=FILE and output=FILE must be given"),
        (("f", "a", "o", None, "Hi"), "give one of them"),
        (("f", None, "o", None, " "), "text= is empty"),
        (("f", "a", "o", [ROW]), "both were given"),
        ((None, None, None, [ROW], "Hi"), "both were given"),
        ((None, None, None, []), "no job"),
        ((None, None, None, [{"face": "f", "audio": "a"}]), "job 1: output is missing"),
        ((None, None, None, [ROW] * 2), "two jobs write to"),
        ((None, None, None, "missing.csv"), r"missing\.csv cannot be read \(No such file"),
        ((None, None, None, DEMO_SPEECH), r"cannot be read \(it is not CSV text"),
    ],
)
def test_invalid_jobs_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        make_jobs(*arguments)


@pytest.mark.parametrize("output", ["out.avi", "out.wav", "out.png"])
def test_formats_that_cannot_be_written_are_refused_before_any_work(output):
    rows = [ROW, {**ROW, "output": output}]
    for arguments in (("f", "a", output, None), (None, None, None, rows)):
        with pytest.raises(UsageError, match=r"\.mp4"):
            make_jobs(*arguments)


def test_shards_divide_job_list():
    listed = [Job(Path(str(n)), Path("a"), Path(f"{n}.mp4")) for n in range(5)]
    shards = [take_shard(listed, shard, 3) for shard in range(3)]
    assert [len(shard) for shard in shards] == [2, 2, 1]
    assert {job for shard in shards for job in shard} == set(listed)
    assert take_shard(listed) == listed
    for shard, num_shards in ((3, 3), (-1, 3), (0, 0)):
        with pytest.raises(UsageError, match="shard"):
            take_shard(listed, shard, num_shards)


def test_home_folder_is_expanded_in_lists(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = tmp_path / "jobs.csv"
    path.write_text("face,audio,output,exclude_face\n~/f.jpg,~/a.wav,~/o.mp4,~/me.jpg\n")
    row = {"face": "~/f.jpg", "audio": ["~/a.wav"], "output": "~/o.mp4"}
    (tmp_path / "jobs.json").write_text(json.dumps([{**row, "exclude_face": "~/me.jpg"}]))
    home = tmp_path / "home"
    for name in ("jobs.csv", "jobs.json"):
        (job,) = make_jobs(None, None, None, tmp_path / name)
        assert job.locations == (home / "f.jpg", home / "a.wav", home / "o.mp4")
        assert job.changes == (("exclude_face", (str(home / "me.jpg"),)),)


@pytest.mark.parametrize(
    ("faces", "audio"),
    [
        ('"0,1"', '"a|b"'),
        ("[0, 1]", '["a", "b"]'),
        ('"[0,1]"', '"[a, b]"'),
        ('"0|1"', '["a", "b"]'),
        ('["0", "1"]', '"[a,b]"'),
    ],
)
def test_lists_of_faces_and_audio_in_json_have_the_notations_of_csv(tmp_path, faces, audio):
    path = tmp_path / "jobs.json"
    path.write_text(
        f'[{{"face": "f", "audio": {audio}, "output": "o.mp4", "face_select": {faces}}}]'
    )
    (job,) = make_jobs(None, None, None, path)
    assert job.audio == (tmp_path / "a", tmp_path / "b")
    (change,) = job.changes
    chosen = SourceOptions(face_select=change[1]).chosen_faces
    assert [choice.value for choice in chosen] == [0, 1]


def test_name_of_a_file_with_a_separator_is_one_value(tmp_path):
    (tmp_path / "a|b.wav").touch()
    path = tmp_path / "jobs.json"
    path.write_text('[{"face": "f", "audio": "a|b.wav", "output": "o.mp4"}]')
    (job,) = make_jobs(None, None, None, path)
    assert job.audio == tmp_path / "a|b.wav"


@pytest.mark.parametrize("output", ["out/", ".", "..", "new/..", "out/.", "", "s3://bucket/out/"])
def test_folders_as_outputs_are_refused_before_any_work(tmp_path, output, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match=r"is a folder|output is missing"):
        make_jobs(None, None, None, [{**ROW, "output": output}])
    with pytest.raises(UsageError, match="there is a folder: give the name of a file, such as"):
        make_jobs("f", "a", "there", None)


def test_outputs_inside_a_file_are_refused_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    for name in ("file/o.mp4", "file/more/o.mp4"):
        with pytest.raises(UsageError, match=r"o\.mp4: .*file is a file; give the name of a file"):
            make_jobs("f", "a", str(tmp_path / name), None)


@pytest.mark.parametrize("index", [2, "2", 2.0, "2.0"])
def test_face_index_is_an_option_of_a_job(index):
    (job,) = make_jobs(None, None, None, [{**ROW, "face_select": "index", "face_index": index}])
    assert SourceOptions(**dict(job.changes)).face_index == 2
    (other,) = make_jobs(None, None, None, [{**ROW, "face_select": "index", "face_index": "x"}])
    with pytest.raises(UsageError, match="face_index=x"):
        SourceOptions(**dict(other.changes))


@pytest.mark.parametrize("jobs", [5, [1], {"face": "f"}, ["f,a,o"]])
def test_lists_of_no_mappings_are_refused(jobs):
    with pytest.raises(
        UsageError, match=r"job 1.*(expected a mapping with the keys|audio, output is missing)"
    ):
        make_jobs(None, None, None, jobs)


def test_invalid_index_is_not_interpreted_as_a_photo(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("face,audio,output,face_select\nf,a,o.mp4,-1\n")
    (job,) = make_jobs(None, None, None, path)
    with pytest.raises(UsageError, match=r"^face_select=-1: expected the index of a face"):
        SourceOptions(**dict(job.changes))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("indent", [None, 2])
def test_objects_of_a_json_file_may_have_any_layout_and_encoding(tmp_path, encoding, indent):
    row = {"face": "f", "text": "Gr\u00fc\u00dfe", "output": "o.mp4"}
    texts = [json.dumps(row, indent=indent, ensure_ascii=False)]
    if "utf" in encoding:  # Characters at which Python ends a line, but JSON does not.
        row = {**row, "text": "one\u2028two\x85three", "output": "p.mp4"}
        texts.append(json.dumps(row, indent=indent, ensure_ascii=False))
    path = tmp_path / "jobs.jsonl"
    path.write_bytes("\n\n".join(texts).encode(encoding))
    first, *others = make_jobs(None, None, None, path)
    assert first.text == "Gr\u00fc\u00dfe"
    assert [job.text for job in others] == [row["text"]] * (len(texts) - 1)


def test_keys_of_json_may_have_capitals_and_spaces_as_in_csv(tmp_path):
    path = tmp_path / "jobs.json"
    path.write_text('[{"Face": "f", " AUDIO ": "a", "Output": "o.mp4"}]')
    for jobs in (path, json.loads(path.read_text())):
        (job,) = make_jobs(None, None, None, jobs)
        assert [place.name for place in job.locations] == ["f", "a", "o.mp4"]


def test_names_that_no_file_can_have_are_refused_before_any_work(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for name in (f"{'n' * 300}.mp4", "loop", "loop/o.mp4", "a\0b.mp4"):
        with pytest.raises(UsageError, match="the name of a file to write"):
            make_jobs("f", "a", str(tmp_path / name), None)
