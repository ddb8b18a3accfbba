# SPDX-License-Identifier: Apache-2.0
"""The synchroniser: policies, silent cameras, clock jumps, and laws that hold for any input."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occany_ros.sync_rules import SyncRules
from occany_ros.synchroniser import QUEUE_DEPTH, Synchroniser

MS = 1_000_000
S = 1_000_000_000
ABC = ("a", "b", "c")


def rules(**changes):
    return SyncRules(**({"cameras": ABC} | changes))


def feed(sync, offers):
    """Offer (camera, stamp_ms, now_ms) triples, return the sets as {camera: stamp_ms}."""
    sets = []
    for camera, stamp, now in offers:
        found = sync.add(camera, round(stamp * MS), f"{camera}{stamp}", round(now * MS))
        if found:
            sets.append({image.camera: image.stamp_ns / MS for image in found.images})
    return sets


def balance(sync):
    counters = sync.counters
    return counters.used + counters.dropped + sync.queued()


def test_set_goes_out_with_the_last_camera_and_keeps_the_order_of_the_rules():
    sync = Synchroniser(rules())
    assert sync.add("c", 0, "pc", 0) is None
    assert sync.add("a", 10 * MS, "pa", 0) is None
    found = sync.add("b", 20 * MS, "pb", 0)
    assert found.cameras == ABC
    assert [image.payload for image in found.images] == ["pa", "pb", "pc"]
    assert found.stamp_ns == 10 * MS
    assert found.skew_ns == 20 * MS


def test_spread_beyond_max_skew_never_matches():
    sync = Synchroniser(rules(cameras=("a", "b"), max_skew_ns=30 * MS))
    assert feed(sync, [("a", 0, 0), ("b", 31, 31)]) == []
    assert feed(sync, [("a", 40, 40)]) == [{"a": 40, "b": 31}]
    assert sync.counters.dropped_unmatched == 1


def test_exact_ignores_near_misses():
    sync = Synchroniser(rules(cameras=("a", "b"), policy="exact"))
    assert feed(sync, [("a", 0, 0), ("b", 0.001, 0), ("a", 100, 100), ("b", 100, 100)]) == [
        {"a": 100, "b": 100}
    ]


def test_newest_complete_set_wins():
    sync = Synchroniser(rules(cameras=("a", "b")))
    assert feed(sync, [("a", 0, 0), ("a", 100, 100), ("b", 101, 101)]) == [{"a": 100, "b": 101}]
    assert sync.counters.dropped_unmatched == 1


def test_streams_that_arrive_two_periods_apart_still_match():
    sync = Synchroniser(rules(cameras=("a", "b"), max_skew_ns=10 * MS))
    offers = []
    for k in range(20):
        offers.append(("a", 100 * k, 100 * k))
        if k >= 2:
            offers.append(("b", 100 * (k - 2) + 3, 100 * k + 1))
    assert len(feed(sync, offers)) == 18


def test_latest_pairs_free_running_cameras_and_reuses_the_slow_one():
    sync = Synchroniser(rules(cameras=("fast", "slow"), policy="latest", max_age_ns=500 * MS))
    offers = [("slow", 0, 0), ("fast", 10, 10), ("fast", 110, 110), ("fast", 210, 210)]
    sets = feed(sync, offers)
    assert sets[0] == {"fast": 10, "slow": 0}
    assert sets[-1] == {"fast": 210, "slow": 0}


def test_latest_leaves_out_an_image_that_is_too_old():
    sync = Synchroniser(
        rules(cameras=("fast", "slow"), policy="latest", max_age_ns=50 * MS, max_wait_ns=100 * MS)
    )
    feed(sync, [("slow", 0, 0), ("fast", 0, 0), ("fast", 100, 100)])
    found = sync.poll(250 * MS)
    assert found.cameras == ("fast",)


def test_a_missing_camera_delays_a_set_only_by_max_wait():
    sync = Synchroniser(rules(max_wait_ns=200 * MS))
    feed(sync, [("a", 0, 0), ("b", 1, 1)])
    assert sync.poll(199 * MS) is None
    assert sync.poll(200 * MS).cameras == ("a", "b")
    assert sync.counters.partial_sets == 1


def test_a_silent_camera_is_left_out_and_rejoins():
    sync = Synchroniser(rules(max_wait_ns=500 * MS, camera_timeout_ns=1000 * MS))
    assert len(feed(sync, [(camera, 0, 0) for camera in ABC])) == 1
    sets = []
    for k in range(1, 31):
        sets += feed(sync, [("a", 100 * k, 100 * k), ("b", 100 * k, 100 * k)])
    assert sync.is_silent("c", 3000 * MS)
    assert not sync.is_silent("a", 3000 * MS)
    assert sync.silence_ns("c", 3000 * MS) == 3 * S
    assert sets[-1] == {"a": 3000, "b": 3000}
    without_wait = [stamps["a"] for stamps in sets if stamps["a"] > 1000]
    assert without_wait == [100 * k for k in range(11, 31)]
    feed(sync, [("c", 3100, 3100)])
    assert feed(sync, [("a", 3100, 3101), ("b", 3100, 3102)]) == [dict.fromkeys(ABC, 3100)]


def test_a_camera_that_never_sent_counts_from_the_first_image_of_any():
    sync = Synchroniser(rules(cameras=("a", "b"), camera_timeout_ns=S, max_wait_ns=10 * S))
    assert sync.silence_ns("b", 99 * S) is None
    feed(sync, [("a", 0, 5000)])
    assert not sync.is_silent("b", 6 * S)
    assert feed(sync, [("a", 1100, 6100)]) == [{"a": 1100}]


def test_required_cameras_and_min_cameras_hold_back_sets():
    sync = Synchroniser(rules(required_cameras=frozenset({"c"}), max_wait_ns=10 * MS))
    feed(sync, [("a", 0, 0), ("b", 0, 0)])
    assert sync.poll(20 * MS) is None
    assert sync.counters.dropped_unmatched == 2
    assert sync.queued() == 0
    sync = Synchroniser(rules(min_cameras=2, max_wait_ns=10 * MS))
    feed(sync, [("a", 0, 0)])
    assert sync.poll(20 * MS) is None


def test_a_loop_of_the_recording_clears_once_and_goes_on():
    sync = Synchroniser(rules())
    for k in range(60):
        feed(sync, [(camera, 100 * k, 100 * k) for camera in ABC])
    before = sync.counters
    sets = []
    for k in range(10):
        sets += feed(sync, [(camera, 100 * k, 6000 + 100 * k) for camera in ABC])
    assert sync.counters.clock_jumps == before.clock_jumps + 1
    assert len(sets) == 10


def test_images_left_over_from_before_the_jump_do_not_jump_again():
    sync = Synchroniser(rules())
    for k in range(60):
        feed(sync, [(camera, 100 * k, 100 * k) for camera in ABC])
    feed(sync, [("a", 0, 6000), ("b", 5890, 6001), ("c", 0, 6002), ("b", 0, 6003)])
    assert sync.counters.clock_jumps == 1
    assert sync.counters.sets == 61


def test_epoch_changes_with_the_jump():
    sync = Synchroniser(rules(cameras=("a",)))
    assert sync.add("a", 9 * S, None, 0).epoch == 0
    assert sync.add("a", 1 * S, None, 1).epoch == 1


def test_one_late_image_is_dropped_without_a_jump():
    sync = Synchroniser(rules(cameras=("a",)))
    assert len(feed(sync, [("a", 100, 0), ("a", 50, 1), ("a", 100, 2), ("a", 200, 3)])) == 2
    assert sync.counters.dropped_out_of_order == 2
    assert sync.counters.clock_jumps == 0


def test_a_recording_shorter_than_the_jump_limit_may_loop():
    sync = Synchroniser(rules(cameras=("a",)))
    stamps = [100 * k for k in range(9)]
    sets = feed(sync, [("a", stamp, 900 * n + stamp) for n in range(4) for stamp in stamps])
    assert len(sets) >= 9 + 3 * (9 - QUEUE_DEPTH - 1)


def test_gap_forward_counts_as_jump_only_when_asked():
    for gap, jumps in ((0, 0), (10 * S, 1)):
        sync = Synchroniser(rules(cameras=("a",), max_gap_ns=gap))
        feed(sync, [("a", 0, 0), ("a", 20_000, 1)])
        assert sync.counters.clock_jumps == jumps


def test_queue_is_bounded_and_overflow_counted():
    sync = Synchroniser(rules(cameras=("a", "b"), max_wait_ns=10**15, camera_timeout_ns=10**15))
    feed(sync, [("a", k, k) for k in range(100)])
    assert sync.queued() == QUEUE_DEPTH
    assert sync.counters.dropped_overflow == 100 - QUEUE_DEPTH


def test_rules_change_but_not_the_cameras():
    sync = Synchroniser(rules(cameras=("a", "b"), max_skew_ns=0))
    feed(sync, [("a", 0, 0), ("b", 5, 0)])
    sync.set_rules(rules(cameras=("a", "b"), max_skew_ns=5 * MS))
    assert sync.poll(1).cameras == ("a", "b")
    with pytest.raises(ValueError, match="cameras are fixed"):
        sync.set_rules(rules())


OFFERS = st.lists(
    st.tuples(st.sampled_from(ABC), st.integers(0, 3000), st.integers(0, 120)), max_size=120
)


@settings(max_examples=80, deadline=None)
@given(OFFERS, st.sampled_from(("approximate", "exact", "latest")), st.integers(0, 200))
def test_every_image_is_accounted_for_and_every_set_obeys_the_rules(offers, policy, skew):
    sync = Synchroniser(
        rules(policy=policy, max_skew_ns=skew * MS, max_wait_ns=300 * MS, max_age_ns=400 * MS)
    )
    now = 0
    used_by_epoch: dict[tuple, int] = {}
    for camera, stamp, pause in offers:
        now += pause * MS
        for found in (sync.add(camera, stamp * MS, None, now), sync.poll(now)):
            if found is None:
                continue
            assert found.skew_ns <= sync.rules.tolerance_ns()
            assert len(set(found.cameras)) == len(found.images)
            for image in found.images:
                key = (image.camera, found.epoch)
                newer = image.stamp_ns - used_by_epoch.get(key, -1)
                assert newer > 0 or (policy == "latest" and newer == 0)
                used_by_epoch[key] = image.stamp_ns
    assert balance(sync) == sync.counters.received == len(offers)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=QUEUE_DEPTH, unique=True),
    st.lists(st.integers(0, 400), min_size=1, max_size=QUEUE_DEPTH, unique=True),
    st.integers(0, 400),
)
def test_the_chosen_set_is_the_newest_that_exists(stamps_a, stamps_b, stamp_c):
    """Against every combination, with the images of a and b queued before c completes them."""
    skew = 60
    sync = Synchroniser(rules(max_skew_ns=skew * MS, max_wait_ns=10**15, camera_timeout_ns=10**15))
    feed(sync, [("a", s, 0) for s in sorted(stamps_a)] + [("b", s, 0) for s in sorted(stamps_b)])
    sets = feed(sync, [("c", stamp_c, 1)])
    possible = [
        combination
        for combination in itertools.product(stamps_a, stamps_b, [stamp_c])
        if max(combination) - min(combination) <= skew
    ]
    if not possible:
        assert sets == []
        return
    newest = max(min(combination) for combination in possible)
    least_spread = min(max(c) - min(c) for c in possible if min(c) == newest)
    chosen = sets[0].values()
    assert min(chosen) == newest
    assert max(chosen) - min(chosen) == least_spread


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(6)), st.integers(1, 20))
def test_aligned_cameras_lose_nothing_in_any_order_of_arrival(order, cycles):
    cameras = tuple(f"cam{k}" for k in range(6))
    sync = Synchroniser(rules(cameras=cameras))
    for cycle in range(cycles):
        feed(sync, [(cameras[k], 100 * cycle + k, 100 * cycle + 10) for k in order])
    assert sync.counters.sets == cycles
    assert sync.counters.dropped == 0


def test_a_disabled_camera_is_not_waited_for_and_its_return_is_no_jump():
    sync = Synchroniser(rules(max_gap_ns=S))
    assert feed(sync, [("a", 0, 0), ("b", 0, 0)]) == []
    sync.set_rules(rules(max_gap_ns=S, disabled_cameras=frozenset("b")))
    assert feed(sync, [("c", 0, 1)]) == [{"a": 0, "c": 0}]
    for step in range(1, 30):
        assert len(feed(sync, [("a", 200 * step, 200 * step), ("c", 200 * step, 200 * step)])) == 1
    sync.set_rules(rules(max_gap_ns=S))
    assert feed(sync, [(camera, 6000, 6000) for camera in ABC]) == [dict.fromkeys(ABC, 6000)]
    assert sync.counters.clock_jumps == 0
    assert balance(sync) == sync.counters.received


def test_restart_begins_a_new_history_without_a_jump_of_the_clock():
    sync = Synchroniser(rules())
    feed(sync, [("a", 100, 0)])
    sync.restart()
    assert sync.queued() == 0
    found = [sync.add(camera, 50 * MS, camera, 1) for camera in ABC][-1]
    assert found.epoch == sync.epoch == 1
    assert sync.counters.clock_jumps == 0
    assert balance(sync) == sync.counters.received
