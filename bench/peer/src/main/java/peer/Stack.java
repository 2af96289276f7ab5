package peer;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.ListOffsetsResult;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TopicExistsException;

/** Topics and tables: put back to their empty beginning, filled, and looked at from the end. */
final class Stack {
    static final List<String> TOPICS = List.of(Workload.EVENTS, Workload.FEATURES, Workload.SCORES, Workload.ALERTS, Workload.ANALYTICS);

    static Properties admin(Flags f) {
        Properties p = new Properties();
        p.put(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, App.bootstrap(f));
        return p;
    }

    /**
     * Deletes every topic, group and schema, as broker and database are the benchmark's own; makes the five topics and two tables,
     * or with --bare none of them, for an application that makes its own.
     */
    static void reset(Flags f) throws Exception {
        try (Admin admin = Admin.create(admin(f))) {
            Set<String> old = new TreeSet<>(admin.listTopics(new ListTopicsOptions().listInternal(false)).names().get());
            // Kafka Streams' own topics are not marked internal; these two are the broker's
            old.remove("__consumer_offsets");
            old.remove("__transaction_state");
            if (!old.isEmpty()) admin.deleteTopics(old).all().get();
            for (int i = 0; i < 200; i++) {
                Set<String> left = admin.listTopics().names().get();
                left.retainAll(old);
                if (left.isEmpty()) break;
                Thread.sleep(50);
            }
            // a group whose last member was killed stays until its session times out
            for (int i = 0; ; i++) {
                List<String> groups = new ArrayList<>();
                admin.listGroups().all().get().forEach(g -> groups.add(g.groupId()));
                if (groups.isEmpty()) break;
                try {
                    admin.deleteConsumerGroups(groups).all().get();
                } catch (ExecutionException x) {
                    if (i == 0) System.err.println("waiting for the groups to empty: " + x.getCause().getMessage());
                    if (i > 300) throw x;
                    Thread.sleep(200);
                }
            }
            if (!f.has("bare")) create(admin);
        }
        try (Connection c = DriverManager.getConnection(App.pg(f)); Statement s = c.createStatement()) {
            List<String> schemas = new ArrayList<>();
            try (ResultSet r = s.executeQuery("SELECT quote_ident(nspname) FROM pg_namespace "
                    + "WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'")) {
                while (r.next()) schemas.add(r.getString(1));
            }
            for (String schema : schemas) s.execute("DROP SCHEMA " + schema + " CASCADE");
            s.execute("CREATE SCHEMA public");
            if (f.has("bare")) return;
            s.execute("CREATE TABLE alerts (alert_id text PRIMARY KEY, entity_id text, score double precision, "
                    + "threshold double precision, segment text, occurred_at timestamptz)");
            s.execute("CREATE TABLE entity_activity (entity_id text, window_size text, window_start timestamptz, events bigint, "
                    + "alerts bigint, score_sum double precision, score_max double precision, "
                    + "PRIMARY KEY (entity_id, window_size, window_start))");
        }
    }

    private static void create(Admin admin) throws Exception {
        // event time lies in the past, so nothing may be deleted by age
        Map<String, String> keep = Map.of("retention.ms", "-1");
        List<NewTopic> topics = new ArrayList<>();
        for (String t : TOPICS) {
            topics.add(new NewTopic(t, Workload.PARTITIONS, (short) 1)
                    .configs(t.equals(Workload.FEATURES) ? Map.of("cleanup.policy", "compact") : keep));
        }
        for (int i = 0; ; i++) {
            try {
                admin.createTopics(topics).all().get();
                break;
            } catch (ExecutionException e) {
                if (!(e.getCause() instanceof TopicExistsException) || i > 100) throw e;
                Thread.sleep(100);
            }
        }
    }

    /**
     * Waits until every partition's leader answers. A partition that is not ready yet may refuse a producer's first batch and
     * take its second, after which the first is out of sequence for good.
     */
    static void ready(Flags f) throws Exception {
        try (Admin admin = Admin.create(admin(f))) {
            ready(admin);
        }
    }

    private static void ready(Admin admin) throws Exception {
        for (int i = 0; ; i++) {
            try {
                long sum = 0;
                for (String t : TOPICS) sum += end(admin, t);
                if (sum != 0) throw new IllegalStateException("the new topics are not empty: " + sum);
                return;
            } catch (ExecutionException e) {
                if (i > 300) throw e;
                Thread.sleep(50);
            }
        }
    }

    private static long end(Admin admin, String topic) throws Exception {
        Map<TopicPartition, OffsetSpec> ask = new HashMap<>();
        for (int p = 0; p < Workload.PARTITIONS; p++) ask.put(new TopicPartition(topic, p), OffsetSpec.latest());
        long sum = 0;
        for (ListOffsetsResult.ListOffsetsResultInfo r : admin.listOffsets(ask).all().get().values()) sum += r.offset();
        return sum;
    }

    /** the topic holds as many records as were sent to it (no transactions here, so offsets are records) */
    static void holds(Flags f, String topic, long records) throws Exception {
        try (Admin admin = Admin.create(admin(f))) {
            long got = end(admin, topic);
            if (got != records) throw new IllegalStateException(topic + " holds " + got + " records, not " + records);
        }
    }

    private Stack() {}
}
