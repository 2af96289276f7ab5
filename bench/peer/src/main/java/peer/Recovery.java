package peer;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.producer.KafkaProducer;

/** Events flow at a rate, the application is killed with kill -9 and started again at once: how long until rows come again. */
final class Recovery {
    static void run(Flags f, String command, String log) throws Exception {
        double rate = f.real("rate", 2000);
        double warm = f.real("warmup-s", 15);
        double timeout = f.real("timeout-s", 90);
        long n = (long) (rate * (warm + 30));
        long killAt = (long) (rate * warm);
        Workload w = Measure.paced(f, n, rate);
        Model m = new Model(w, false);
        Measure.begin(f);
        Map<String, Long> open = new ConcurrentHashMap<>();
        try (KafkaProducer<byte[], byte[]> p = Generator.producer(f, true);
                Connection c = DriverManager.getConnection(App.pg(f));
                Statement s = c.createStatement();
                PreparedStatement look = c.prepareStatement("SELECT alert_id FROM alerts WHERE alert_id = ANY(?)")) {
            Generator.features(w, p);
            Measure.Subject subject = new Measure.Subject(command, log);
            Thread pump = null;
            try {
                Measure.firstRow(w, p, s, subject);
                long[] killed = {0};
                pump = new Thread(() -> Generator.events(w, p, 2, n, rate, (ev, due) -> {
                    if (ev.i == killAt) killed[0] = 1;
                    if (ev.alerts()) open.put(ev.id(), ev.i);
                }));
                pump.start();
                while (killed[0] == 0) {
                    subject.alive();
                    forget(look, c, open, null);
                    LockSupport.parkNanos(5_000_000);
                }
                long t0 = System.nanoTime();
                subject.kill();
                long gone = System.nanoTime();
                // what was produced before this was in flight, and some of it may have been committed by then
                long[] after = {open.values().stream().mapToLong(x -> x).max().orElse(0)};
                subject = new Measure.Subject(command, log + ".again");
                long first = 0;
                while (true) {
                    subject.alive();
                    List<Long> seen = new ArrayList<>();
                    forget(look, c, open, seen);
                    long now = System.nanoTime();
                    if (first == 0 && seen.stream().anyMatch(i -> i > after[0])) first = now;
                    if (!pump.isAlive() && open.isEmpty()) break;
                    if ((now - t0) / 1e9 > timeout) break;
                    LockSupport.parkNanos(5_000_000);
                }
                double alerts = (System.nanoTime() - t0) / 1e9;
                // the last events may have no alert, and their rows are verified too
                String missing = Rows.await(s, m, subject, t0 + (long) (timeout * 1e9));
                double all = (System.nanoTime() - t0) / 1e9;
                Measure.print("rate_events_per_s", rate);
                Measure.print("seconds_to_kill", (gone - t0) / 1e9);
                Measure.print("seconds_to_first_new_row", first == 0 ? Double.NaN : (first - t0) / 1e9);
                Measure.print("seconds_to_all_alerts", alerts);
                Measure.print("seconds_to_all_rows", missing.isEmpty() ? all : Double.NaN);
                Measure.print("rows_missing", missing);
                Measure.print("alerts_not_seen", open.size());
                Measure.print("events", w.events);
            } finally {
                subject.close();
                if (pump != null) pump.join();
            }
        }
    }

    /** takes out what SQL has by now */
    private static void forget(PreparedStatement look, Connection c, Map<String, Long> open, List<Long> seen) throws Exception {
        if (open.isEmpty()) return;
        look.setArray(1, c.createArrayOf("text", open.keySet().toArray(new String[0])));
        try (ResultSet r = look.executeQuery()) {
            while (r.next()) {
                Long i = open.remove(r.getString(1));
                if (i != null && seen != null) seen.add(i);
            }
        }
    }

    private Recovery() {}
}
