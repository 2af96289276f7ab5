package peer;

import java.time.Duration;
import java.util.Arrays;
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

    boolean complete() {
        for (Map.Entry<String, long[]> e : expected.entrySet()) {
            long[] last = last(e.getKey());
            for (int p = 0; p < last.length; p++) if (last[p] < e.getValue()[p]) return false;
        }
        return true;
    }

    /** the number of the last event at the committed end of each partition, 0 where there is none */
    private long[] last(String topic) {
        List<TopicPartition> parts = new java.util.ArrayList<>();
        for (int p = 0; p < Workload.PARTITIONS; p++) parts.add(new TopicPartition(topic, p));
        consumer.assign(parts);
        Map<TopicPartition, Long> end = new HashMap<>(consumer.endOffsets(parts));
        // a few, as the markers of transactions take offsets too
        parts.forEach(t -> consumer.seek(t, Math.max(0, end.get(t) - 10)));
        long[] last = new long[Workload.PARTITIONS];
        Arrays.fill(last, 0);
        long until = System.nanoTime() + 5_000_000_000L;
        while (System.nanoTime() < until && parts.stream().anyMatch(t -> consumer.position(t) < end.get(t))) {
            for (ConsumerRecord<String, byte[]> r : consumer.poll(Duration.ofMillis(50))) {
                long i = Long.parseLong(Codec.parse(r.value(), Codec::readAlert).eventId().substring(2));
                last[r.partition()] = Math.max(last[r.partition()], i);
            }
        }
        return last;
    }

    @Override
    public void close() {
        consumer.close();
    }
}
