package peer;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;

/** CPU and memory of a process and everything under it, from /proc. */
final class Procs {
    private static final double TICK = 1.0 / 100; // USER_HZ

    static List<Long> tree(long pid) {
        List<Long> all = new ArrayList<>();
        ProcessHandle.of(pid).ifPresent(h -> {
            all.add(pid);
            h.descendants().forEach(d -> all.add(d.pid()));
        });
        return all;
    }

    /** user + system seconds of the tree, those of its children that ended and were waited for included */
    static double cpu(long pid) {
        double sum = 0;
        for (long p : tree(pid)) sum += own(p, true);
        return sum;
    }

    static double own(long pid, boolean withEnded) {
        try {
            String s = Files.readString(Path.of("/proc/" + pid + "/stat"), StandardCharsets.ISO_8859_1);
            String[] x = fields(s);
            long t = Long.parseLong(x[11]) + Long.parseLong(x[12]);
            if (withEnded) t += Long.parseLong(x[13]) + Long.parseLong(x[14]);
            return t * TICK;
        } catch (Exception e) {
            return 0; // it has ended: its parent has its time
        }
    }

    /** user + system seconds of the threads of the tree that run, by their process (its roles, or its program) and their name */
    static Map<String, Double> threads(long pid) {
        Map<String, Double> all = new TreeMap<>();
        for (long p : tree(pid)) {
            try (Stream<Path> tasks = Files.list(Path.of("/proc/" + p + "/task"))) {
                String process = label(p);
                for (Path task : tasks.toList()) {
                    String name = Files.readString(task.resolve("comm"), StandardCharsets.ISO_8859_1).trim();
                    String[] x = fields(Files.readString(task.resolve("stat"), StandardCharsets.ISO_8859_1));
                    // threads of a pool differ by a number
                    String of = process + "/" + name.replaceAll("[-#\\d;=/ ]+$", "").replaceAll("[;=/]", "_");
                    all.merge(of, (Long.parseLong(x[11]) + Long.parseLong(x[12])) * TICK, Double::sum);
                }
            } catch (Exception e) {
                // it has ended
            }
        }
        return all;
    }

    private static String label(long pid) throws Exception {
        List<String> words = Arrays.asList(Files.readString(Path.of("/proc/" + pid + "/cmdline"), StandardCharsets.UTF_8).split("\0"));
        int roles = words.indexOf("--roles");
        String name = roles < 0 ? words.get(0).replaceAll(".*/", "") : words.get(roles + 1);
        return name.replaceAll("[;=/]", "_");
    }

    private static String[] fields(String stat) {
        return stat.substring(stat.lastIndexOf(')') + 2).split(" ");
    }

    static long rssKb(long pid) {
        long sum = 0;
        for (long p : tree(pid)) {
            try {
                for (String line : Files.readAllLines(Path.of("/proc/" + p + "/status"), StandardCharsets.ISO_8859_1)) {
                    if (line.startsWith("VmRSS:")) sum += Long.parseLong(line.replaceAll("\\D", ""));
                }
            } catch (Exception e) {
                // it has ended
            }
        }
        return sum;
    }

    /** busy seconds of the whole machine, all cores */
    static double machine() {
        try {
            String[] x = Files.readAllLines(Path.of("/proc/stat")).get(0).trim().split("\\s+");
            // user nice system idle iowait irq softirq steal
            return (Long.parseLong(x[1]) + Long.parseLong(x[2]) + Long.parseLong(x[3]) + Long.parseLong(x[6]) + Long.parseLong(x[7])) * TICK;
        } catch (Exception e) {
            return Double.NaN;
        }
    }

    /** a process that the environment names */
    static long named(String variable) {
        return Long.parseLong(Flags.need(variable));
    }

    private Procs() {}
}
