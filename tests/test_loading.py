"""What is made while modules load is left out of later collections, whose work then goes on."""

import gc

import pytest

from igrpo_mcore.loading import loading


@pytest.fixture(autouse=True)
def thaw():
    yield
    gc.unfreeze()


def test_what_is_loaded_is_left_alone():
    with loading():
        assert not gc.isenabled()
        made = [[] for _ in range(1000)]
    assert gc.isenabled()
    tracked = {id(object_) for object_ in gc.get_objects()}
    assert not any(id(each) in tracked for each in made)


def test_an_import_that_fails_leaves_the_collector_on():
    with pytest.raises(ImportError), loading():
        import igrpo_mcore.there_is_no_such_module  # type: ignore[import-not-found]  # noqa: F401
    assert gc.isenabled()
