import pytest


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache") / "crl"
    monkeypatch.setenv("CRL_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def decodings(monkeypatch):
    """A list that gets an entry for every tree that is decoded."""
    from crl_keras.experiments.data import image_trees

    calls = []
    decode = image_trees._decoded_tree

    def counted(*arguments):
        calls.append(1)
        return decode(*arguments)

    monkeypatch.setattr(image_trees, "_decoded_tree", counted)
    return calls
