import pytest
import torch

from sklcomp.translation._unpaired import ImagePool, UnpairedBatches, UnpairedImages


@pytest.mark.parametrize("size", [1, 3])
def test_pool_holds_earlier_images(size):
    torch.manual_seed(0)
    pool = ImagePool(size)
    n_new = 0
    for step in range(200):
        new = (
            torch.full((2, 1, 2, 2), 2.0 * step) + torch.arange(2)[:, None, None, None]
        )
        shown = pool(new)
        assert shown.shape == new.shape
        assert (shown <= new.max()).all()
        assert (shown == shown[:, :, :1, :1]).all()
        n_new += len(set(shown[:, 0, 0, 0].tolist()) & set(new[:, 0, 0, 0].tolist()))
        assert len(pool.images) == min(size, 2 * step + 2)
        # Each keeps its own memory, not that of its batch.
        assert all(image.untyped_storage().nbytes() == 16 for image in pool.images)
    assert 0.4 < n_new / 400 < 0.75


def test_pool_keeps_channels_last():
    pool = ImagePool(2)
    for _ in range(4):
        images = torch.rand(3, 2, 4, 4).contiguous(memory_format=torch.channels_last)
        assert pool(images).is_contiguous(memory_format=torch.channels_last)


def test_pool_without_size_is_the_identity():
    pool, images = ImagePool(0), torch.rand(3, 1, 2, 2)
    assert pool(images) is images
    assert not pool.images


@pytest.mark.parametrize("batch_size", [1, 3, 4, 50])
@pytest.mark.parametrize(("n_a", "n_b"), [(10, 3), (4, 9), (5, 5), (1, 6)])
def test_batches_show_the_larger_domain_once_and_the_smaller_evenly(
    n_a, n_b, batch_size
):
    torch.manual_seed(0)
    data = UnpairedImages(torch.arange(n_a) + 100, torch.arange(n_b) + 200)
    batches = UnpairedBatches(data, batch_size)
    seen = list(batches)
    assert len(seen) == len(batches) == -(-max(n_a, n_b) // batch_size)
    for a, b, rows_a, rows_b in seen:
        assert len(a) == len(b) <= batch_size
        assert torch.equal(a, rows_a + 100)
        assert torch.equal(b, rows_b + 200)
    for k, n in ((2, n_a), (3, n_b)):
        counts = torch.bincount(torch.cat([batch[k] for batch in seen]), minlength=n)
        assert counts.sum() == max(n_a, n_b)
        assert counts.max() - counts.min() <= 1
    orders = [torch.cat([batch[2] for batch in batches]) for _ in range(5)]
    assert n_a == 1 or any(not torch.equal(orders[0], order) for order in orders)


def test_a_last_batch_of_fewer_can_be_left_out():
    for n, batch_size, sizes in ((9, 4, [4, 4]), (8, 4, [4, 4]), (3, 4, [3])):
        data = UnpairedImages(torch.arange(n), torch.arange(2))
        batches = UnpairedBatches(data, batch_size, drop_last=True)
        assert [len(batch[0]) for batch in batches] == sizes
        assert len(batches) == len(sizes)
