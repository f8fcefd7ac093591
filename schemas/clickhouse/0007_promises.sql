-- The whole promise of a stored class, so that rows stored under an older policy
-- file still follow their anchors: what starts or cuts short the period, what the row
-- hangs on for that, how long after it (within: the last byte, keep otherwise), and
-- the statute. downgrade is what a plan's change hangs on. A row that was registered
-- before has none of it, and its complete repeat counts.
ALTER TABLE retention_classes
    ADD COLUMN IF NOT EXISTS anchor String AFTER sentinel,
    ADD COLUMN IF NOT EXISTS keyed_by String AFTER anchor,
    ADD COLUMN IF NOT EXISTS after_months UInt32 AFTER keyed_by,
    ADD COLUMN IF NOT EXISTS after_days UInt32 AFTER after_months,
    ADD COLUMN IF NOT EXISTS within Bool AFTER after_days,
    ADD COLUMN IF NOT EXISTS least_months UInt32 AFTER within,
    ADD COLUMN IF NOT EXISTS least_days UInt32 AFTER least_months,
    ADD COLUMN IF NOT EXISTS erasable Bool DEFAULT true AFTER least_days,
    ADD COLUMN IF NOT EXISTS reason String AFTER erasable,
    ADD COLUMN IF NOT EXISTS downgrade String AFTER reason;

-- What a later policy file made of older promises, each row one key and the policy
-- version that shortened it. Rows are added and never changed or removed.
CREATE TABLE IF NOT EXISTS retention_shortenings
(
    retention_class String,
    policy_version String,
    months UInt32,
    days UInt32,
    after_months UInt32,
    after_days UInt32,
    within Bool,
    least_months UInt32,
    least_days UInt32,
    decided_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (retention_class, policy_version)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- What holds for every stored class: of its own promise and what shortened it the
-- shortest, part by part. The shortest does not depend on the order in which the rows
-- came, so programs that start at once cannot take a shortening back. A month counts
-- 31 days here, and less than 31 days that are counted; what this order could confuse is
-- never shortened to each other.
CREATE VIEW IF NOT EXISTS retention_promises AS
SELECT
    p.retention_class AS retention_class,
    p.promised_months AS promised_months, p.promised_days AS promised_days, p.sentinel AS sentinel, p.promises AS promises,
    h.period.1 AS months, h.period.2 AS days,
    p.anchor AS anchor, p.keyed_by AS keyed_by,
    h.after.1 AS after_months, h.after.2 AS after_days, h.within AS within,
    h.least.1 AS least_months, h.least.2 AS least_days,
    p.erasable AS erasable, p.reason AS reason, p.downgrade AS downgrade,
    h.shortened_by AS shortened_by, h.shortened_at AS shortened_at
FROM
(
    SELECT retention_class, any(c.months) AS promised_months, any(c.days) AS promised_days, any(c.sentinel) AS sentinel,
        uniqExact(c.months, c.days, c.sentinel) AS promises, max(c.anchor) AS anchor, max(c.keyed_by) AS keyed_by,
        argMax(c.erasable, c.registered_at) AS erasable, argMax(c.reason, c.registered_at) AS reason,
        argMax(c.downgrade, c.registered_at) AS downgrade
    FROM retention_classes AS c
    GROUP BY retention_class
) AS p
INNER JOIN
(
    SELECT retention_class,
        argMin((a.months, a.days), (a.months * 31 + a.days, a.days)) AS period,
        argMinIf((a.after_months, a.after_days), (a.after_months * 31 + a.after_days, a.after_days), a.after_months + a.after_days > 0) AS after,
        argMinIf((a.least_months, a.least_days), (a.least_months * 31 + a.least_days, a.least_days), a.least_months + a.least_days > 0) AS least,
        max(a.within) AS within, argMax(a.policy_version, a.decided_at) AS shortened_by, max(a.decided_at) AS shortened_at
    FROM
    (
        SELECT retention_class, months, days, after_months, after_days, within, least_months, least_days,
            '' AS policy_version, toDateTime64(0, 3, 'UTC') AS decided_at
        FROM retention_classes
        UNION ALL
        SELECT retention_class, months, days, after_months, after_days, within, least_months, least_days, policy_version, decided_at
        FROM retention_shortenings
    ) AS a
    GROUP BY retention_class
) AS h ON p.retention_class = h.retention_class;
