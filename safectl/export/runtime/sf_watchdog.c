#include "sf_watchdog.h"

#define HALF 0x80000000u

static int is_fresh(const sf_watchdog *watchdog, uint32_t now) {
    return watchdog->seen != 0u && now - watchdog->stamp <= watchdog->limit;
}

static void trip(sf_watchdog *watchdog) {
    if (watchdog->mode == SF_RUNNING) {
        watchdog->mode = SF_TRIPPED;
        watchdog->trips++;
    }
}

void sf_watchdog_init(sf_watchdog *watchdog, uint32_t limit) {
    watchdog->mode = SF_STOPPED;
    watchdog->limit = limit < HALF ? limit : HALF - 1u;
    watchdog->stamp = 0u;
    watchdog->seen = 0u;
    watchdog->trips = 0u;
}

int sf_watchdog_observe(sf_watchdog *watchdog, uint32_t stamp, uint32_t now) {
    const uint32_t newer_by = stamp - watchdog->stamp;
    const int is_old = is_fresh(watchdog, now) != 0 && (newer_by == 0u || newer_by >= HALF);
    if (now - stamp > watchdog->limit || is_old != 0) {
        return 0;
    }
    watchdog->stamp = stamp;
    watchdog->seen = 1u;
    return 1;
}

int sf_watchdog_arm(sf_watchdog *watchdog, uint32_t now) {
    if (is_fresh(watchdog, now) != 0) {
        watchdog->mode = SF_RUNNING;
        return 1;
    }
    return sf_watchdog_check(watchdog, now);
}

int sf_watchdog_check(sf_watchdog *watchdog, uint32_t now) {
    if (is_fresh(watchdog, now) == 0) {
        watchdog->seen = 0u; /* when the counter has gone round it would look fresh again */
        trip(watchdog);
    }
    return watchdog->mode == SF_RUNNING;
}

int sf_watchdog_run(sf_watchdog *watchdog, uint32_t stamp, uint32_t now) {
    (void)sf_watchdog_observe(watchdog, stamp, now);
    if (now - stamp > watchdog->limit) {
        trip(watchdog);
    }
    return sf_watchdog_check(watchdog, now) != 0 && stamp == watchdog->stamp;
}

void sf_watchdog_stop(sf_watchdog *watchdog) {
    watchdog->mode = SF_STOPPED;
}
