"""Scalers where scikit-learn is not installed: in a fresh interpreter that cannot import it."""

from __future__ import annotations

import textwrap
from typing import Any

WITHOUT = """
    import sys
    sys.modules["sklearn"] = None
"""

WORKS = """
    import copy, pickle
    import numpy as np
    import fastnorm.preprocessing as fp

    assert not any(name.startswith(("sklearn.", "scipy.sparse")) for name in sys.modules)
    X = np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 8.0]])
    for kind in (fp.StandardScaler, fp.MinMaxScaler, fp.MaxAbsScaler):
        scaler = kind()
        Y = scaler.fit_transform(X)
        np.testing.assert_allclose(scaler.inverse_transform(Y), X)
        np.testing.assert_allclose(pickle.loads(pickle.dumps(scaler)).transform(X), Y)
        np.testing.assert_allclose(kind(**scaler.get_params()).partial_fit(X[:1]).merge(kind().fit(X[1:])).transform(X.tolist()), Y)
        np.testing.assert_allclose(np.concatenate(list(kind().fit(iter([X])).transform(iter([X])))), Y)
        assert scaler.n_features_in_ == 2 and not hasattr(scaler, "feature_names_in_")
        assert scaler.get_feature_names_out().tolist() == ["x0", "x1"]
        assert scaler.get_feature_names_out(["a", "b"]).tolist() == ["a", "b"]
    np.testing.assert_allclose(fp.normalize([[3, 4]]), [[0.6, 0.8]])
    np.testing.assert_allclose(fp.scale(X[:, 0]), [-np.sqrt(1.5), 0.0, np.sqrt(1.5)])
    np.testing.assert_array_equal(fp.StandardScaler().fit(np.array([["1", "2"], ["3", "4"]], object)).mean_, [2.0, 3.0])

    scaler = fp.MinMaxScaler((0, 2))
    assert repr(scaler) == "MinMaxScaler(feature_range=(0, 2))" and repr(fp.MaxAbsScaler()) == "MaxAbsScaler()"
    assert scaler.get_params() == {"feature_range": (0, 2), "copy": True, "clip": False}
    assert scaler.set_params(clip=True) is scaler and scaler.clip

    import scipy.sparse as sp
    S = sp.coo_array(np.nan_to_num(X))
    for kind in (fp.StandardScaler(with_mean=False), fp.MaxAbsScaler(), fp.Normalizer()):
        np.testing.assert_allclose(kind.fit(S).transform(S).toarray(), kind.fit(S.toarray()).transform(S.toarray()))
"""

REFUSES = """
    import warnings
    import numpy as np
    import fastnorm.preprocessing as fp
    import scipy.sparse as sp
    from fastnorm.preprocessing.door import table_for

    def refuses(error, text, call, *arguments, **options):
        try:
            call(*arguments, **options)
        except error as found:
            assert text in str(found), (text, str(found))
        else:
            raise SystemExit(f"no error: {text}")

    X = np.arange(6.0).reshape(3, 2)
    scaler = fp.StandardScaler()
    for error in (ValueError, AttributeError):
        refuses(error, "This StandardScaler instance is not fitted yet", scaler.transform, X)
        refuses(error, "not fitted", scaler.get_feature_names_out)
    scaler.fit(X)
    before = dict(vars(scaler))
    refuses(ValueError, "X has 1 features, but StandardScaler is expecting 2", scaler.transform, X[:, :1])
    refuses(ValueError, "Expected 2D array, got 1D array", scaler.fit, X[0])
    refuses(ValueError, "dim 3", scaler.fit, X[None])
    refuses(ValueError, "Found array with 0 sample(s)", scaler.fit, X[:0])
    refuses(ValueError, "Found array with 0 feature(s)", scaler.fit, X[:, :0])
    refuses(ValueError, "Complex data not supported", scaler.fit, X * 1j)
    refuses(ValueError, "could not convert", scaler.fit, [["a", "b"]])
    refuses(ValueError, "infinity", scaler.fit, [[np.inf, 1.0]])
    refuses(TypeError, "masked", scaler.fit, np.ma.masked_array(X, X > 2))
    refuses(ValueError, "Invalid parameter 'std'", scaler.set_params, std=1)
    refuses(TypeError, "Consider using MaxAbsScaler", fp.MinMaxScaler().fit, sp.csr_array(X))
    refuses(TypeError, "Sparse data was passed", table_for, "a function", sp.csr_array(X))
    refuses(ValueError, "length equal to number of features", scaler.get_feature_names_out, ["a"])
    assert dict(vars(scaler)) == before

    class Frame:
        columns = ["a", "b"]
        def __array__(self, dtype=None, copy=None):
            return X.astype(dtype or X.dtype)

    named = fp.MaxAbsScaler().fit(Frame())
    assert named.feature_names_in_.tolist() == named.get_feature_names_out().tolist() == ["a", "b"]
    np.testing.assert_allclose(named.transform(Frame()), X / X.max(0), rtol=1e-15)
    refuses(ValueError, "input_features is not equal", named.get_feature_names_out, ["b", "a"])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        named.transform(X)
        fp.MaxAbsScaler().fit(X).transform(Frame())
    assert "X does not have valid feature names" in str(seen[0].message) and "X has feature names" in str(seen[1].message)
    class Other(Frame):
        columns = ["a", "c"]
    refuses(ValueError, "The feature names should match those that were passed during fit", named.transform, Other())
    refuses(ValueError, "other was fitted with the features", named.merge, fp.MaxAbsScaler().fit(Other()))
    named.fit(X)
    assert not hasattr(named, "feature_names_in_")
"""


def test_they_work(run_python: Any) -> None:
    run_python("-W", "error", "-c", textwrap.dedent(WITHOUT) + textwrap.dedent(WORKS))


def test_they_refuse_what_they_refuse_with_it(run_python: Any) -> None:
    run_python("-W", "error", "-c", textwrap.dedent(WITHOUT) + textwrap.dedent(REFUSES))
