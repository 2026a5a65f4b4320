"""Specific and agnostic vectors (the MFSA paper, figure 5): how far apart they lie, and a plane to draw them in."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits

METHODS = ('tsne', 'pca')


def separation(vectors: np.ndarray) -> float | None:
    """Silhouette of the modalities among vectors (R, M, D), 1 apart to -1 mixed; None for one modality or record."""
    records, modalities, features = vectors.shape
    if records < 2 or modalities < 2:
        return None
    return float(silhouette_score(vectors.reshape(-1, features), np.tile(np.arange(modalities), records)))


def correlation(specific: np.ndarray, agnostic: np.ndarray) -> float:
    """How much specific and agnostic vectors (R, M, D) of the same records say the same, 0 to 1, mean over modalities.

    Linear centred kernel alignment (Kornblith et al. 2019): squared entries of the cross-covariance, over those of both
    covariances; not changed by rotations or by the size of the vectors. 0 where one side does not vary.
    """
    values = []
    for m in range(specific.shape[1]):
        a, b = (x[:, m].astype(np.float64) - x[:, m].mean(0, dtype=np.float64) for x in (specific, agnostic))
        size = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
        values.append(float(np.linalg.norm(a.T @ b) ** 2 / size) if size > 0 else 0.0)
    return float(np.mean(values))


def embed(vectors: np.ndarray, method: str) -> tuple[np.ndarray, tuple[float, ...]]:
    """Vectors (..., D) in one plane, (..., 2), and the shares (2,) of the variance along its axes.

    t-SNE starts from the PCA and is seeded; it has no such shares.
    """
    shares: tuple[float, ...] = ()
    points = vectors.reshape(-1, vectors.shape[-1])
    if method == 'tsne':
        perplexity = min(30.0, (len(points) - 1) / 3)
        with threadpool_limits(1):  # several threads would add up in another order each time
            flat = TSNE(2, perplexity=perplexity, init='pca', random_state=0).fit_transform(points)
    elif method == 'pca':
        pca = PCA(2, svd_solver='full')
        flat, shares = pca.fit_transform(points), tuple(pca.explained_variance_ratio_.tolist())
    else:
        raise ValueError(f'method {method!r}: expected one of {", ".join(METHODS)}')
    return flat.reshape(*vectors.shape[:-1], 2), shares
