package peer;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.GlobalKTable;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;

/** The peer: the Kafka Streams topology, and beside it the JDBC sink (in this process or in one of its own). */
final class App {
    static final Set<String> FLAGS = Set.of("streams", "sink", "threads", "commit-interval-ms", "cache-mb", "linger-ms", "batch-kb",
            "compression", "state-dir", "global-store", "window-store", "retry-backoff-ms", "alert-tasks", "analytics-tasks", "max-poll-records", "bootstrap", "pg");

    /** event time comes from the payload; the value is already deserialized here, so this costs nothing */
    static final class OccurredAt implements TimestampExtractor {
        @Override
        public long extract(ConsumerRecord<Object, Object> record, long partitionTime) {
            return ((Codec.Event) record.value()).occurredAt();
        }
    }

    /** RocksDB unless --window-store memory: a sparse month of event time makes RocksDB open and drop a segment every few minutes of it */
    static Materialized<String, Codec.Agg, WindowStore<Bytes, byte[]>> windowStore(Flags f, String name, Duration size) {
        return f.text("window-store", "rocksdb").equals("memory")
                ? Materialized.as(Stores.inMemoryWindowStore(name, size.plusMillis(Workload.GRACE_MS), size, false))
                : Materialized.as(name);
    }

    static Topology topology(Flags f, Properties config) {
        StreamsBuilder builder = new StreamsBuilder();
        boolean inMemory = f.text("global-store", "memory").equals("memory");
        Materialized<String, Codec.Features, org.apache.kafka.streams.state.KeyValueStore<Bytes, byte[]>> table =
                inMemory ? Materialized.as(Stores.inMemoryKeyValueStore("features")) : Materialized.as("features");
        GlobalKTable<String, Codec.Features> features = builder.globalTable(Workload.FEATURES,
                Consumed.with(Serdes.String(), Codec.FEATURES),
                table.withKeySerde(Serdes.String()).withValueSerde(Codec.FEATURES));
        KStream<String, Codec.Event> events = builder.stream(Workload.EVENTS,
                Consumed.with(Serdes.String(), Codec.EVENT).withTimestampExtractor(new OccurredAt()));
        KStream<String, Codec.Scored> scored = events.leftJoin(features, (key, event) -> key, (event, feat) -> feat == null
                ? new Codec.Scored(event.eventId(), event.entityId(), event.amount() * Workload.DEFAULT_WEIGHT,
                        Workload.DEFAULT_THRESHOLD, Workload.NO_SEGMENT, event.occurredAt())
                : new Codec.Scored(event.eventId(), event.entityId(), event.amount() * feat.riskWeight(),
                        feat.threshold(), feat.segment(), event.occurredAt()));
        scored.to(Workload.SCORES, Produced.with(Serdes.String(), Codec.SCORE));
        scored.filter((key, s) -> s.alert()).to(Workload.ALERTS, Produced.with(Serdes.String(), Codec.ALERT));
        KGroupedStream<String, Codec.Scored> byEntity = scored.groupByKey(Grouped.with(Serdes.String(), Codec.SCORE));
        for (int k = 0; k < 3; k++) {
            String name = Workload.WINDOW_NAMES[k];
            byEntity.windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofMillis(Workload.WINDOW_MS[k]), Duration.ofMillis(Workload.GRACE_MS)))
                    .aggregate(() -> Codec.Agg.ZERO, (key, s, agg) -> agg.plus(s),
                            windowStore(f, "activity-" + name, Duration.ofMillis(Workload.WINDOW_MS[k]))
                                    .withKeySerde(Serdes.String()).withValueSerde(Codec.AGG))
                    .toStream()
                    .map((w, a) -> KeyValue.pair(w.key(), new Codec.Activity(w.key(), name, w.window().start(),
                            a.events(), a.alerts(), a.sum(), a.max())))
                    .to(Workload.ANALYTICS, Produced.with(Serdes.String(), Codec.ACTIVITY));
        }
        return builder.build(config);
    }

    static Properties config(Flags f) {
        Properties p = new Properties();
        p.put(StreamsConfig.APPLICATION_ID_CONFIG, "peer-signals");
        p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap(f));
        p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        p.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, f.integer("commit-interval-ms", 100));
        p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, f.integer("threads", 2));
        p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, f.whole("cache-mb", 10) * 1024 * 1024);
        p.put(StreamsConfig.TOPOLOGY_OPTIMIZATION_CONFIG, StreamsConfig.OPTIMIZE);
        p.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        p.put(StreamsConfig.STATE_DIR_CONFIG, f.text("state-dir", Flags.need("PEER_STATE")));
        // event time lies in the past: without this the broker would delete the changelogs' segments by the wall clock
        p.put(StreamsConfig.WINDOW_STORE_CHANGE_LOG_ADDITIONAL_RETENTION_MS_CONFIG, Duration.ofDays(3650).toMillis());
        p.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), f.integer("linger-ms", 100));
        p.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), f.integer("batch-kb", 128) * 1024);
        p.put(StreamsConfig.producerPrefix(ProducerConfig.RETRY_BACKOFF_MS_CONFIG), f.integer("retry-backoff-ms", 10));
        p.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), f.text("compression", "lz4"));
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 1024 * 1024);
        // Streams does not leave its group when it closes (4.1): the next start waits for this, not for 45 s
        p.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG), 10_000);
        // the global table's partitions are read one after another, and each change of partition waits out the fetch in flight
        p.put(StreamsConfig.globalConsumerPrefix(ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG), 20);
        p.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), f.integer("max-poll-records", 2000));
        return p;
    }

    static String bootstrap(Flags f) {
        return f.text("bootstrap", Flags.need("KAFKA_BOOTSTRAP"));
    }

    static String pg(Flags f) {
        return f.text("pg", Flags.need("PG_JDBC"));
    }

    static void run(Flags f) throws Exception {
        // neither named: both, in one JVM
        boolean streams = f.has("streams") || !f.has("sink");
        boolean sink = f.has("sink") || !f.has("streams");
        List<AutoCloseable> parts = new ArrayList<>();
        CountDownLatch down = new CountDownLatch(1);
        if (sink) parts.add(Sink.start(f, down));
        if (streams) {
            Properties config = config(f);
            Topology topology = topology(f, config);
            KafkaStreams ks = new KafkaStreams(topology, config);
            ks.setUncaughtExceptionHandler(e -> {
                e.printStackTrace();
                return StreamThreadExceptionResponse.REPLACE_THREAD;
            });
            long t0 = System.nanoTime();
            ks.setStateListener((now, before) -> {
                System.err.printf("streams: %s -> %s at %.2f s%n", before, now, (System.nanoTime() - t0) / 1e9);
                if (now == KafkaStreams.State.ERROR || now == KafkaStreams.State.NOT_RUNNING) down.countDown();
            });
            parts.add(() -> {
                report(ks);
                ks.close(Duration.ofSeconds(20));
            });
            ks.start();
        }
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            for (int i = parts.size() - 1; i >= 0; i--) {
                try {
                    parts.get(i).close();
                } catch (Exception e) {
                    e.printStackTrace();
                }
            }
        }));
        down.await();
        System.exit(1);
    }

    /** where the time went, to the log */
    private static void report(KafkaStreams ks) {
        Set<String> sums = Set.of("dropped-records-total", "commit-total", "process-total", "record-retry-total", "record-error-total",
                "txn-commit-time-ns-total", "txn-send-offsets-time-ns-total", "txn-begin-time-ns-total", "flush-time-ns-total",
                "request-total", "bufferpool-wait-time-ns-total");
        Set<String> levels = Set.of("stream-thread-metrics", "producer-metrics", "stream-task-metrics");
        java.util.Map<String, Double> totals = new java.util.TreeMap<>();
        ks.metrics().forEach((name, metric) -> {
            if (levels.contains(name.group()) && sums.contains(name.name())
                    && (name.name().equals("dropped-records-total") || !name.group().equals("stream-task-metrics"))) {
                totals.merge(name.group() + " " + name.name(), ((Number) metric.metricValue()).doubleValue(), Double::sum);
            }
        });
        totals.forEach((name, v) -> System.err.println(name + " " + (name.contains("-ns-") ? v / 1e9 + " s" : String.valueOf(v.longValue()))));
    }

    private App() {}
}
