// Names builds for people, and says what to do about one whose version the configuration no longer has. Pure: no I/O.

/** A build of a projection, as `status` knows it. */
interface OwnBuild {
  readonly name: string
  /** The number of the build. */
  readonly version: number
  /** The version that its code declares. */
  readonly declared: number
  readonly mode: string
  readonly removed: boolean
}
/** The builds that are there, and the state directory if the database is the embedded one. */
interface BuildsInUse {
  readonly partitions: ReadonlyArray<OwnBuild>
  readonly embeddedDir: string | undefined
}

/** The flag that commands need to find an embedded database; empty for the default directory and for a server. */
export const dataFlag = (embeddedDir: string | undefined): string => {
  if (embeddedDir === undefined || embeddedDir === ".millrace") return ""
  return ` --data ${/^[\w./@:+-]+$/.test(embeddedDir) ? embeddedDir : `'${embeddedDir.replaceAll("'", `'\\''`)}'`}`
}
/** Names a build as lists of dead letters do: `alerts v1`, or `alerts build 3 (version 2)` where the numbers differ. */
export const buildText = ({ declared, name, version }: Pick<OwnBuild, "declared" | "name" | "version">): string =>
  `${name} ${declared === version ? `v${version}` : `build ${version} (version ${declared})`}`

/** Whether the configuration still has a version of the projection. */
const hasVersion = ({ partitions }: BuildsInUse, name: string): boolean =>
  partitions.some((other) => other.name === name && !other.removed)

/** What to do about a build whose version the configuration no longer has. Readers see the live one, so that it cannot be retired before another is promoted. */
export const removedAdvice = (builds: BuildsInUse, { declared, mode, name, version }: OwnBuild): string => {
  const flag = dataFlag(builds.embeddedDir)
  if (!hasVersion(builds, name)) return `put it back, or end it: millrace retire${flag} ${name} ${version}`
  return mode === "live"
    ? `put version ${declared} back, or let another build take its place: millrace promote${flag} ${name}`
    : `if nobody needs it for a rollback, end build ${version}: millrace retire${flag} ${name} ${version}; to let it follow again, put version ${declared} back`
}
/** What it means that the configuration no longer has a build's version. */
export const removedText = (builds: BuildsInUse, { declared, mode, name, version }: OwnBuild): string => {
  if (!hasVersion(builds, name)) return "the configuration no longer has it, so nothing processes its topics"
  const live = builds.partitions.find(
    (other) => other.name === name && other.mode === "live" && other.version !== version
  )
  const said = `the configuration no longer has version ${declared}, so no process runs build ${version}`
  return mode === "live" || live === undefined
    ? said
    : `${said}; readers see ${live.declared === live.version ? `version ${live.declared}` : `build ${live.version} of version ${live.declared}`}`
}
