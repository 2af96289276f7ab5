package peer;

import java.io.File;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.Statement;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.producer.KafkaProducer;

/** Throughput and latency. They start a command line, and read the topics and tables that it fills; what the command runs does not matter. */
final class Measure {
    /** The application under test, its peak memory sampled every 100 ms. */
    static final class Subject implements AutoCloseable {
        final Process process;
        final long pid;
        volatile long peakKb;
        private final Thread sampler;
        private volatile boolean over;

        Subject(String command, String log) throws Exception {
            Files.createDirectories(Path.of(log).toAbsolutePath().getParent());
            ProcessBuilder b = new ProcessBuilder("bash", "-c", "exec " + command);
            b.redirectErrorStream(true).redirectOutput(new File(log)).redirectInput(new File("/dev/null"));
            process = b.start();
            pid = process.pid();
            sampler = new Thread(() -> {
                while (!over) {
                    peakKb = Math.max(peakKb, Procs.rssKb(pid));
                    LockSupport.parkNanos(100_000_000);
                }
            });
            sampler.setDaemon(true);
            sampler.start();
            Runtime.getRuntime().addShutdownHook(new Thread(() -> Procs.tree(pid).forEach(p -> ProcessHandle.of(p).ifPresent(ProcessHandle::destroyForcibly))));
        }

        void alive() {
            if (!process.isAlive()) throw new IllegalStateException("the application ended with " + process.exitValue());
        }

        /** kill -9 of the whole tree, and its end */
        void kill() throws Exception {
            over = true;
            List<ProcessHandle> all = Procs.tree(pid).stream().flatMap(p -> ProcessHandle.of(p).stream()).toList();
            all.forEach(ProcessHandle::destroyForcibly);
            process.waitFor();
        }

        @Override
        public void close() throws Exception {
            over = true;
            // npm, npx and shells do not all pass a signal on
            List<ProcessHandle> all = Procs.tree(pid).stream().flatMap(p -> ProcessHandle.of(p).stream()).toList();
            all.forEach(ProcessHandle::destroy);
            long until = System.nanoTime() + 25_000_000_000L;
            while (System.nanoTime() < until && all.stream().anyMatch(ProcessHandle::isAlive)) Thread.sleep(50);
            all.forEach(ProcessHandle::destroyForcibly);
            process.waitFor();
        }
    }

    private static final class Cpu {
        final double app;
        final double broker;
        final double pg;
        final double measurer;
        final double machine;
        final Map<String, Double> threads;

        Cpu(Subject s, int pollPid) {
            app = s == null ? 0 : Procs.cpu(s.pid);
            threads = s == null ? Map.of() : Procs.threads(s.pid);
            broker = Procs.cpu(Procs.named("BROKER_PID"));
            // less this measurement's own connection
            double poll = Procs.own(pollPid, false);
            pg = Procs.cpu(Procs.named("POSTGRES_PID")) - poll;
            measurer = Procs.own(ProcessHandle.current().pid(), false) + poll;
            machine = Procs.machine();
        }
    }

    /** seconds since an earlier moment by thread: process/name=seconds;... */
    static String threads(Map<String, Double> before, Map<String, Double> after) {
        StringBuilder b = new StringBuilder();
        after.forEach((name, seconds) -> b.append(b.isEmpty() ? "" : ";").append(name)
                .append(String.format(Locale.ROOT, "=%.2f", seconds - before.getOrDefault(name, 0.0))));
        return b.toString();
    }

    static void print(String name, Object value) {
        System.out.printf(Locale.ROOT, "%-36s %s%n", name, value instanceof Double d ? String.format(Locale.ROOT, "%.3f", d) : value);
    }

    static long one(Statement s, String sql) throws Exception {
        try (ResultSet r = s.executeQuery(sql)) {
            r.next();
            return r.getLong(1);
        }
    }

    static void throughput(Flags f, Workload w, String command, String log) throws Exception {
        Model m = new Model(w, false);
        begin(f);
        long t = System.nanoTime();
        Generator.fill(f, w);
        print("fill_s", (System.nanoTime() - t) / 1e9);
        Thread.sleep(f.whole("settle-ms", 3000));
        long timeout = f.whole("timeout-s", 120);
        try (Connection c = DriverManager.getConnection(App.pg(f)); Statement s = c.createStatement(); Outputs outputs = new Outputs(f, m)) {
            int backend = (int) one(s, "SELECT pg_backend_pid()");
            s.execute("SET max_parallel_workers_per_gather = 0");
            long wal = one(s, WAL);
            Cpu before = new Cpu(null, backend);
            long t0 = System.nanoTime();
            try (Subject subject = new Subject(command, log)) {
                double first = -1;
                double sql = -1;
                double done = -1;
                List<double[]> curve = new ArrayList<>();
                while (true) {
                    double now = (System.nanoTime() - t0) / 1e9;
                    if (now > timeout) {
                        throw new IllegalStateException("not done after " + timeout + " s: "
                                + (sql < 0 ? "SQL lacks " + Rows.missing(s, m) : "SQL had all after " + sql + " s, the topics lack " + outputs.missing()));
                    }
                    subject.alive();
                    if (first < 0) {
                        if (one(s, "SELECT count(*) FROM (SELECT 1 FROM entity_activity LIMIT 1) x") > 0) first = now;
                        else LockSupport.parkNanos(20_000_000);
                        continue;
                    }
                    if (sql >= 0) {
                        if (f.has("sql-only") || outputs.missing().isEmpty()) {
                            done = now;
                            break;
                        }
                        LockSupport.parkNanos(50_000_000);
                        continue;
                    }
                    long[] sums = Rows.events(s);
                    curve.add(new double[] {now, sums[0]});
                    if (sums[0] >= m.accepted[0] && sums[1] >= m.accepted[1] && sums[2] >= m.accepted[2]
                            && one(s, "SELECT count(*) FROM alerts") >= m.alerts) {
                        sql = now;
                        continue;
                    }
                    double took = (System.nanoTime() - t0) / 1e9 - now;
                    LockSupport.parkNanos((long) (1e9 * Math.max(0.1, 10 * took)));
                }
                Cpu after = new Cpu(subject, backend);
                // updates of windows may come in a later transaction than the scores; they are verified too, but not measured
                print("updates_missing", f.has("sql-only") ? "" : outputs.awaitUpdates(w, m, subject, System.nanoTime() + 30_000_000_000L));
                print("events", w.events);
                print("seconds_from_process_start", done);
                print("seconds_to_first_row", first);
                print("seconds_to_all_rows", sql);
                print("wal_bytes", one(s, WAL) - wal);
                print("events_per_s_from_process_start", w.events / done);
                print("events_per_s_from_first_row", w.events / (done - first));
                for (int q = 0; q < 4; q++) {
                    print("events_per_s_quarter_" + (q + 1), slope(curve, m.accepted[0] * q / 4.0, m.accepted[0] * (q + 1) / 4.0));
                }
                print("events_per_s_second_half", slope(curve, m.accepted[0] / 2.0, m.accepted[0]));
                print("cpu_s_app", after.app);
                print("cpu_s_app_threads", threads(before.threads, after.threads));
                print("cpu_s_broker", after.broker - before.broker);
                print("cpu_s_postgres", after.pg - before.pg);
                print("cpu_s_total", after.app + after.broker - before.broker + after.pg - before.pg);
                print("cpu_s_measurer", after.measurer - before.measurer);
                // a run on a busy machine shows here
                print("cpu_s_others", after.machine - before.machine - after.app - (after.broker - before.broker) - (after.pg - before.pg)
                        - (after.measurer - before.measurer));
                print("peak_rss_app_mib", subject.peakKb / 1024.0);
                print("rows_alerts", one(s, "SELECT count(*) FROM alerts"));
                print("rows_alerts_expected", m.alerts);
                for (int k = 0; k < 3; k++) {
                    String n = Workload.WINDOW_NAMES[k];
                    long sum = one(s, "SELECT coalesce(sum(events), 0) FROM entity_activity WHERE window_size = '" + n + "'");
                    print("rows_" + n, one(s, "SELECT count(*) FROM entity_activity WHERE window_size = '" + n + "'")
                            + " (expected " + m.rows[k] + ")");
                    print("events_in_" + n, sum + " + dropped late " + (w.events - sum) + " (expected dropped " + m.dropped[k] + ")");
                }
                StringBuilder b = new StringBuilder();
                for (double[] p : thin(curve)) b.append(String.format(Locale.ROOT, " %.1f:%d", p[0], (long) p[1]));
                print("curve_s_to_events_in_1m", b.toString().trim());
            }
        }
    }

    private static List<double[]> thin(List<double[]> curve) {
        List<double[]> some = new ArrayList<>();
        for (double[] p : curve) if (some.isEmpty() || p == curve.get(curve.size() - 1) || p[0] - some.get(some.size() - 1)[0] >= 1) some.add(p);
        return some;
    }

    /** events/s between the first sight of at least from and the first of at least to */
    private static double slope(List<double[]> curve, double from, double to) {
        double[] a = null;
        for (double[] p : curve) {
            if (a == null && p[1] >= from) a = p;
            if (p[1] >= to) return a == null || p[0] <= a[0] ? Double.NaN : (p[1] - a[1]) / (p[0] - a[0]);
        }
        return Double.NaN;
    }

    /** topics and tables, made here or (--prepared) by the application's own commands before */
    static void begin(Flags f) throws Exception {
        if (!f.has("prepared")) Stack.reset(f);
        Stack.ready(f);
        try (Connection c = DriverManager.getConnection(App.pg(f)); Statement s = c.createStatement()) {
            s.execute("CHECKPOINT");
        }
    }

    /** a workload whose event time goes as fast as the clock */
    static Workload paced(Flags f, long n, double rate) {
        return new Workload(n, f.integer("entities", 10_000), f.whole("seed", 1), f.whole("start-ms", 1_735_689_600_000L),
                f.whole("events-per-second-of-event-time", Math.max(1, (long) rate)), f.real("late-fraction", 0.01), f.real("zipf", 1.0),
                f.real("featureless-fraction", 0.02));
    }

    /** one event through before the schedule starts, so that the schedule does not run while the application starts */
    static void firstRow(Workload w, KafkaProducer<byte[], byte[]> p, Statement s, Subject subject) throws Exception {
        Generator.events(w, p, 1, 1, 0, null);
        long until = System.nanoTime() + 60_000_000_000L;
        while (one(s, "SELECT count(*) FROM (SELECT 1 FROM entity_activity LIMIT 1) x") == 0) {
            subject.alive();
            if (System.nanoTime() > until) throw new IllegalStateException("no row after 60 s");
            Thread.sleep(20);
        }
    }

    private static final String WAL = "SELECT (pg_current_wal_lsn() - '0/0')::bigint";

    static void latency(Flags f, String command, String log) throws Exception {
        double rate = f.real("rate", 2000);
        double warm = f.real("warmup-s", 20);
        double measured = f.real("measure-s", 30);
        long n = (long) (rate * (warm + measured));
        long skip = (long) (rate * warm);
        Workload w = paced(f, n, rate);
        Model m = new Model(w, false);
        begin(f);
        Map<String, Long> open = new ConcurrentHashMap<>();
        double[] late = {0};
        List<Double> seen = new ArrayList<>();
        // for --alerts: the clock that other processes have, in milliseconds, at a time of this one's
        Instant instant = Instant.now();
        double epoch = instant.getEpochSecond() * 1e3 + instant.getNano() / 1e6 - System.nanoTime() / 1e6;
        StringBuilder alerts = new StringBuilder();
        try (KafkaProducer<byte[], byte[]> p = Generator.producer(f, true);
                Connection c = DriverManager.getConnection(App.pg(f));
                Statement s = c.createStatement();
                PreparedStatement look = c.prepareStatement("SELECT alert_id FROM alerts WHERE alert_id = ANY(?)")) {
            Generator.features(w, p);
            int backend = (int) one(s, "SELECT pg_backend_pid()");
            try (Subject subject = new Subject(command, log)) {
                firstRow(w, p, s, subject);
                Cpu[] mark = new Cpu[1];
                long[] markAt = new long[1];
                Thread pump = new Thread(() -> Generator.events(w, p, 2, n, rate, (ev, due) -> {
                    late[0] = Math.max(late[0], ev.i > skip ? (System.nanoTime() - due) / 1e6 : 0);
                    if (ev.i == skip + 1) {
                        mark[0] = new Cpu(subject, backend);
                        markAt[0] = System.nanoTime();
                    }
                    if (ev.alerts()) open.put(ev.id(), due);
                }));
                pump.start();
                long pause = (long) (f.real("poll-ms", 2) * 1e6);
                long polls = 0;
                long deadline = Long.MAX_VALUE;
                Cpu after = null;
                while (true) {
                    if (!pump.isAlive() && deadline == Long.MAX_VALUE) {
                        deadline = System.nanoTime() + f.whole("timeout-s", 30) * 1_000_000_000L;
                        after = new Cpu(subject, backend);
                        markAt[0] = System.nanoTime() - markAt[0];
                    }
                    if (!pump.isAlive() && open.isEmpty()) break;
                    if (System.nanoTime() > deadline) {
                        break; // alerts_not_seen says how many
                    }
                    subject.alive();
                    if (!open.isEmpty()) {
                        String[] ids = open.keySet().toArray(new String[0]);
                        look.setArray(1, c.createArrayOf("text", ids));
                        List<String> found = new ArrayList<>();
                        try (ResultSet r = look.executeQuery()) {
                            while (r.next()) found.add(r.getString(1));
                        }
                        long now = System.nanoTime(); // the answer is here: an upper bound
                        for (String id : found) {
                            long due = open.remove(id);
                            if (Long.parseLong(id.substring(2)) <= skip) continue;
                            seen.add((now - due) / 1e6);
                            alerts.append(String.format(Locale.ROOT, "%s %.3f %.3f%n", id, epoch + due / 1e6, epoch + now / 1e6));
                        }
                        polls++;
                    }
                    LockSupport.parkNanos(pause);
                }
                // the last events may have no alert, and their rows are verified too
                print("rows_missing", Rows.await(s, m, subject, deadline));
                double[] ms = seen.stream().mapToDouble(x -> x).toArray();
                Arrays.sort(ms);
                print("rate_events_per_s", rate);
                print("measured_s", measured);
                print("warmup_s", warm);
                print("alerts_measured", ms.length);
                print("alerts_not_seen", open.size());
                for (double q : new double[] {0.5, 0.95, 0.99}) print("latency_ms_p" + (int) (q * 100), quantile(ms, q));
                print("latency_ms_max", ms.length == 0 ? Double.NaN : ms[ms.length - 1]);
                print("latency_ms_mean", Arrays.stream(ms).average().orElse(Double.NaN));
                print("generator_worst_lag_ms", late[0]);
                print("polls", polls);
                if (f.has("alerts")) Files.writeString(Path.of(f.text("alerts", "")), alerts);
                double span = markAt[0] / 1e9;
                print("cores_app", (after.app - mark[0].app) / span);
                print("cpu_s_app_threads", threads(mark[0].threads, after.threads));
                print("cores_broker", (after.broker - mark[0].broker) / span);
                print("cores_postgres", (after.pg - mark[0].pg) / span);
                print("cores_measurer", (after.measurer - mark[0].measurer) / span);
                print("cores_others", (after.machine - mark[0].machine - (after.app - mark[0].app) - (after.broker - mark[0].broker)
                        - (after.pg - mark[0].pg) - (after.measurer - mark[0].measurer)) / span);
                print("peak_rss_app_mib", subject.peakKb / 1024.0);
            }
        }
    }

    /** nearest rank */
    private static double quantile(double[] sorted, double q) {
        return sorted.length == 0 ? Double.NaN : sorted[Math.min(sorted.length - 1, (int) Math.ceil(q * sorted.length) - 1)];
    }

    /** The final tables, sorted by their keys' bytes, times as epoch milliseconds, doubles to four decimals. */
    static void dump(Flags f, Path dir) throws Exception {
        Files.createDirectories(dir);
        boolean exact = f.has("exact");
        String[] d = new String[4];
        String[] names = {"score", "threshold", "score_sum", "score_max"};
        for (int i = 0; i < 4; i++) d[i] = exact ? names[i] : "round(" + names[i] + "::numeric, 4)";
        Map<String, String> queries = new HashMap<>();
        queries.put("alerts.tsv", "SELECT alert_id, entity_id, " + d[0] + " AS score, " + d[1] + " AS threshold, segment, "
                + "(extract(epoch FROM occurred_at) * 1000)::bigint AS occurred_at_ms FROM alerts ORDER BY alert_id COLLATE \"C\"");
        queries.put("entity_activity.tsv", "SELECT entity_id, window_size, (extract(epoch FROM window_start) * 1000)::bigint AS window_start_ms, "
                + "events, alerts, " + d[2] + " AS score_sum, " + d[3] + " AS score_max FROM entity_activity "
                + "ORDER BY entity_id COLLATE \"C\", window_size COLLATE \"C\", window_start");
        try (Connection c = DriverManager.getConnection(App.pg(f))) {
            for (Map.Entry<String, String> q : queries.entrySet()) {
                try (OutputStream out = Files.newOutputStream(dir.resolve(q.getKey()))) {
                    long n = c.unwrap(org.postgresql.PGConnection.class).getCopyAPI()
                            .copyOut("COPY (" + q.getValue() + ") TO STDOUT WITH (FORMAT text, HEADER true)", out);
                    System.out.println(dir.resolve(q.getKey()) + ": " + n + " rows");
                }
            }
        }
    }

    private Measure() {}
}
