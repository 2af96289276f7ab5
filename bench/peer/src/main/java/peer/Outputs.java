package peer;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Whether the outputs of the last events are committed: an application publishes a partition's events in order, so that when the last
 * one's score and the last alert are at the committed end, all those before are. It reads the ends alone, which costs next to nothing;
 * Verify reads all of it.
 */
final class Outputs implements AutoCloseable {
    private final KafkaConsumer<String, byte[]> consumer;
    private final Map<String, long[]> expected;

    Outputs(Flags f, Model m) {
        Properties p = new Properties();
        p.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, App.bootstrap(f));
        p.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
        p.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        p.put(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG, 16_384);
        consumer = new KafkaConsumer<>(p, new StringDeserializer(), new ByteArrayDeserializer());
        expected = Map.of(Workload.SCORES, m.lastEvent, Workload.ALERTS, m.lastAlert);
    }

    /** the partitions whose committed ends do not have the outputs of the last events, empty if all have */
    String missing() {
        List<String> all = new ArrayList<>();
        for (Map.Entry<String, long[]> e : expected.entrySet()) {
            long[] last = last(e.getKey());
            for (int p = 0; p < last.length; p++) {
                if (last[p] < e.getValue()[p]) all.add(e.getKey() + "/" + p + " (at event " + last[p] + " of " + e.getValue()[p] + ")");
            }
        }
        return String.join(", ", all);
    }

    /**
     * Waits until the committed ends have the final updates of the windows of each partition's last event, or the deadline (of
     * System.nanoTime) has passed; how many are missing then, empty if none is. An application publishes a partition's updates in order.
     */
    String awaitUpdates(Workload w, Model m, Measure.Subject subject, long deadline) throws Exception {
        Map<Sink.ActivityKey, Long> wanted = new HashMap<>();
        Workload.Event ev = w.new Event();
        for (long i : m.lastEvent) {
            if (i == 0) continue;
            w.fill(ev, i);
            for (int k = 0; k < Workload.WINDOW_NAMES.length; k++) {
                long start = ev.occurredAt - Math.floorMod(ev.occurredAt, Workload.WINDOW_MS[k]);
                Model.Agg a = m.windows.get(new Model.Key(k, ev.entity, start));
                if (a != null) wanted.put(new Sink.ActivityKey(w.entityId[ev.entity], Workload.WINDOW_NAMES[k], start), a.events);
            }
        }
        while (true) {
            tail(Workload.ANALYTICS, 20_000, r -> {
                Codec.Activity a = Codec.parse(r.value(), Codec::readActivity);
                Sink.ActivityKey key = new Sink.ActivityKey(a.entityId(), a.windowSize(), a.windowStart());
                Long events = wanted.get(key);
                if (events != null && a.events() >= events) wanted.remove(key);
            });
            if (wanted.isEmpty()) return "";
            if (System.nanoTime() > deadline) return wanted.size() + " last updates of " + Workload.ANALYTICS;
            subject.alive();
            Thread.sleep(200);
        }
    }

    /** the number of the last event at the committed end of each partition, 0 where there is none */
    private long[] last(String topic) {
        long[] last = new long[Workload.PARTITIONS];
        // the markers of transactions and time marks take offsets, too
        tail(topic, 1_000, r -> {
            long i = Long.parseLong(Codec.parse(r.value(), Codec::readAlert).eventId().substring(2));
            last[r.partition()] = Math.max(last[r.partition()], i);
        });
        return last;
    }

    /** shows the committed records of the last so many offsets of each partition, without time marks, which have no value */
    private void tail(String topic, long offsets, Verify.Each each) {
        List<TopicPartition> parts = new ArrayList<>();
        for (int p = 0; p < Workload.PARTITIONS; p++) parts.add(new TopicPartition(topic, p));
        consumer.assign(parts);
        Map<TopicPartition, Long> end = new HashMap<>(consumer.endOffsets(parts));
        parts.forEach(t -> consumer.seek(t, Math.max(0, end.get(t) - offsets)));
        long until = System.nanoTime() + 5_000_000_000L;
        while (System.nanoTime() < until && parts.stream().anyMatch(t -> consumer.position(t) < end.get(t))) {
            for (ConsumerRecord<String, byte[]> r : consumer.poll(Duration.ofMillis(50))) if (r.value() != null) each.record(r);
        }
    }

    @Override
    public void close() {
        consumer.close();
    }
}
