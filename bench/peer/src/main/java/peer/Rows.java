package peer;

import java.sql.ResultSet;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;

/** Whether SQL has every row that the model expects. Alerts alone do not tell: most events have none. */
final class Rows {
    /** the sum of events over the rows of each window size, as SQL has them now */
    static long[] events(Statement s) throws Exception {
        long[] sums = new long[Workload.WINDOW_NAMES.length];
        try (ResultSet r = s.executeQuery("SELECT window_size, sum(events) FROM entity_activity GROUP BY 1")) {
            while (r.next()) sums[Codec.WINDOW_NAMES.indexOf(r.getString(1))] = r.getLong(2);
        }
        return sums;
    }

    /** what SQL still lacks, empty if it has everything */
    static String missing(Statement s, Model m) throws Exception {
        List<String> all = new ArrayList<>();
        long[] sums = events(s);
        for (int k = 0; k < sums.length; k++) {
            if (sums[k] < m.accepted[k]) all.add((m.accepted[k] - sums[k]) + " of " + m.accepted[k] + " events in windows of " + Workload.WINDOW_NAMES[k]);
        }
        long alerts = Measure.one(s, "SELECT count(*) FROM alerts");
        if (alerts < m.alerts) all.add((m.alerts - alerts) + " of " + m.alerts + " alerts");
        return String.join(", ", all);
    }

    /** Waits until SQL has all rows, or the deadline (of System.nanoTime) has passed; what is missing then, empty if nothing is. */
    static String await(Statement s, Model m, Measure.Subject subject, long deadline) throws Exception {
        while (true) {
            String missing = missing(s, m);
            if (missing.isEmpty() || System.nanoTime() > deadline) return missing;
            subject.alive();
            Thread.sleep(50);
        }
    }

    private Rows() {}
}
