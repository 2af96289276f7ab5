package peer;

import java.io.BufferedWriter;
import java.io.IOException;
import java.math.BigDecimal;
import java.math.RoundingMode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * The reference model: the final SQL tables worked out from the workload alone, in one thread, with no Kafka. Its late
 * rule is Kafka Streams' (KStreamWindowAggregate): stream time is the greatest occurred_at seen so far in the
 * event's partition, the event itself included; a window [start, start + size) takes the event while
 * start + size > stream time - grace, each window size judged by itself.
 */
final class Model {
    static final class Agg {
        long events;
        long alerts;
        double sum;
        double max = Double.NEGATIVE_INFINITY;
    }

    record Key(int window, int entity, long start) {}

    final Map<Key, Agg> windows = new HashMap<>();
    final List<String> alertLines = new ArrayList<>();
    final long[] accepted = new long[3];
    final long[] dropped = new long[3];
    final long[] rows = new long[3];
    long alerts;
    long backdated;
    final long[] eventsPerPartition = new long[Workload.PARTITIONS];
    /** the number of each partition's last event and last alert */
    final long[] lastEvent = new long[Workload.PARTITIONS];
    final long[] lastAlert = new long[Workload.PARTITIONS];

    Model(Workload w, boolean keepAlertLines) {
        long[] streamTime = new long[Workload.PARTITIONS];
        java.util.Arrays.fill(streamTime, Long.MIN_VALUE);
        Workload.Event ev = w.new Event();
        for (long i = 1; i <= w.events; i++) {
            w.fill(ev, i);
            int p = w.entityPartition[ev.entity];
            eventsPerPartition[p]++;
            lastEvent[p] = i;
            if (ev.occurredAt < streamTime[p]) backdated++;
            streamTime[p] = Math.max(streamTime[p], ev.occurredAt);
            double score = ev.score();
            boolean alert = ev.alerts();
            if (alert) {
                alerts++;
                lastAlert[p] = i;
                if (keepAlertLines) {
                    alertLines.add(ev.id() + '\t' + w.entityId[ev.entity] + '\t' + four(score) + '\t'
                            + four(w.threshold[ev.entity]) + '\t'
                            + (w.hasFeatures(ev.entity) ? w.segment[ev.entity] : Workload.NO_SEGMENT) + '\t' + ev.occurredAt);
                }
            }
            for (int k = 0; k < 3; k++) {
                long size = Workload.WINDOW_MS[k];
                long start = ev.occurredAt - Math.floorMod(ev.occurredAt, size);
                if (start + size > streamTime[p] - Workload.GRACE_MS) {
                    accepted[k]++;
                    Agg a = windows.computeIfAbsent(new Key(k, ev.entity, start), x -> new Agg());
                    a.events++;
                    if (alert) a.alerts++;
                    a.sum += score;
                    a.max = Math.max(a.max, score);
                } else {
                    dropped[k]++;
                }
            }
        }
        for (Key k : windows.keySet()) rows[k.window]++;
    }

    /** every score is an exact multiple of 0.0001, so four decimals hide no more than the rounding of the doubles */
    static String four(double v) {
        return BigDecimal.valueOf(v).setScale(4, RoundingMode.HALF_UP).toPlainString();
    }

    void write(Workload w, Path dir) throws IOException {
        Files.createDirectories(dir);
        try (BufferedWriter out = Files.newBufferedWriter(dir.resolve("alerts.tsv"))) {
            out.write("alert_id\tentity_id\tscore\tthreshold\tsegment\toccurred_at_ms\n");
            for (String line : alertLines) out.append(line).append('\n'); // event ids rise, so these are sorted
        }
        List<Map.Entry<Key, Agg>> all = new ArrayList<>(windows.entrySet());
        all.sort((a, b) -> {
            int c = w.entityId[a.getKey().entity].compareTo(w.entityId[b.getKey().entity]);
            if (c == 0) c = Workload.WINDOW_NAMES[a.getKey().window].compareTo(Workload.WINDOW_NAMES[b.getKey().window]);
            return c != 0 ? c : Long.compare(a.getKey().start, b.getKey().start);
        });
        try (BufferedWriter out = Files.newBufferedWriter(dir.resolve("entity_activity.tsv"))) {
            out.write("entity_id\twindow_size\twindow_start_ms\tevents\talerts\tscore_sum\tscore_max\n");
            for (Map.Entry<Key, Agg> e : all) {
                Agg a = e.getValue();
                out.append(w.entityId[e.getKey().entity]).append('\t').append(Workload.WINDOW_NAMES[e.getKey().window]).append('\t')
                        .append(Long.toString(e.getKey().start)).append('\t').append(Long.toString(a.events)).append('\t')
                        .append(Long.toString(a.alerts)).append('\t').append(four(a.sum)).append('\t').append(four(a.max)).append('\n');
            }
        }
    }
}
