package peer;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;

/** --name value (or a bare --name, which means true). An unknown name is an error. */
final class Flags {
    private final Map<String, String> given = new LinkedHashMap<>();

    Flags(String[] args, int from, Set<String> known) {
        for (int i = from; i < args.length; i++) {
            if (!args[i].startsWith("--")) throw new IllegalArgumentException("not a flag: " + args[i]);
            String name = args[i].substring(2);
            int eq = name.indexOf('=');
            String value;
            if (eq >= 0) {
                value = name.substring(eq + 1);
                name = name.substring(0, eq);
            } else if (i + 1 < args.length && !args[i + 1].startsWith("--")) {
                value = args[++i];
            } else {
                value = "true";
            }
            if (!known.contains(name)) throw new IllegalArgumentException("unknown flag --" + name + "; known: " + known);
            given.put(name, value);
        }
    }

    String text(String name, String otherwise) {
        String v = given.get(name);
        return v == null ? otherwise : v;
    }

    int integer(String name, int otherwise) {
        String v = given.get(name);
        return v == null ? otherwise : Integer.parseInt(v);
    }

    long whole(String name, long otherwise) {
        String v = given.get(name);
        return v == null ? otherwise : Long.parseLong(v);
    }

    double real(String name, double otherwise) {
        String v = given.get(name);
        return v == null ? otherwise : Double.parseDouble(v);
    }

    boolean has(String name) {
        return given.containsKey(name) && !given.get(name).equals("false");
    }

    /** a variable of the environment that the benchmark sets */
    static String need(String name) {
        String v = System.getenv(name);
        if (v == null || v.isEmpty()) throw new IllegalArgumentException(name + " is not set: run this by `npm run bench`");
        return v;
    }
}
