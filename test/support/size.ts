// How large the runs are that a test repeats: small in every `npm test`, large with MILLRACE_SIZE=long, as `.ci/nightly` sets it.

/** Whether this run has the time for the long forms. */
export const isLong = process.env["MILLRACE_SIZE"] === "long"
