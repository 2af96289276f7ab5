// Versions: the builds of each projection; rebuild with progress, diff with samples, promote, roll back and retire.
import { curlOf, send, useGet } from "../lib/api.js"
import { counted, number, shellWord } from "../lib/format.js"
import { html } from "../lib/html.js"
import { runJob } from "../lib/jobs.js"
import { go, linkTo } from "../lib/router.js"
import { Action, Empty, Loaded, Table, Tag } from "../parts/common.js"
import { Job, JobList, Plan, Progress, Promoted } from "../parts/jobs.js"

const base = "/v1/operations/projections"
const pathOf = (name, what) => `${base}/${encodeURIComponent(name)}/${what}`
const roles = { live: "good", candidate: "warn", previous: "quiet", investigation: "quiet", follower: "quiet" }

/** An object without what was not given. */
const given = (fields) =>
  Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined && value !== "" && value !== false)
  )
const numberOr = (text, none) =>
  text === "" || text === undefined
    ? undefined
    : text === none
      ? null
      : Number.isNaN(Number(text))
        ? text
        : Number(text)
/** The command with options; those that were not given are left out. */
const commandOf = (words, options) =>
  [
    "npx millrace",
    ...words,
    ...Object.entries(given(options)).flatMap(([name, value]) =>
      value === true ? [`--${name}`] : [`--${name}`, shellWord(String(value))]
    )
  ].join(" ")
/** Starts what may take long, goes to its job, also if it has ended at once, and shows how far it is in the dialog. */
const startJob = async (name, what, body, report, reload) => {
  let isShown = false
  return runJob(pathOf(name, what), body, (job) => {
    if (job.state === "running")
      report(
        html`<${Progress} of=${job.progress} />
          <p class="quiet">It goes on, also when this is closed.</p>`
      )
    if (isShown) return
    isShown = true
    go(linkTo(["versions", name], { job: job.id }), { replace: true })
    reload()
  })
}
const timeout = {
  name: "timeout",
  label: "Seconds at most",
  kind: "number",
  hint: "then it gives up, with nothing changed"
}
const msOf = ({ timeout: seconds }) => (seconds ? Math.round(Number(seconds) * 1_000) : undefined)

/** Replaying the log into the next build. */
const rebuildOptions = [
  {
    name: "from",
    label: "From",
    hint: "empty: the start of the log. A date, 2 hours, or now: a copy of the live build"
  },
  { name: "until", label: "Until", hint: "an investigation build, of what was stored before then: never promoted" },
  { name: "keys", label: "Keys, separated by commas", hint: "a copy in which their rows alone are replayed" },
  { name: "rate", label: "Events a second", hint: "or max" },
  { name: "maxLiveLag", label: "Seconds that live events may wait", hint: "or none" },
  { name: "today", label: "Lookups as they are today", kind: "flag", hint: "not as each event saw them" }
]
const keysOf = ({ keys }) =>
  keys
    .split(",")
    .map((key) => key.trim())
    .filter(Boolean)
const rebuildBody = (chosen) => {
  const { from, maxLiveLag, rate, today, until } = chosen
  const keys = keysOf(chosen)
  return given({
    from,
    until,
    keys: keys.length > 0 ? keys : undefined,
    rate: numberOr(rate, "max"),
    maxLiveLag: numberOr(maxLiveLag, "none"),
    lookups: today ? "today" : undefined
  })
}
const rebuildCommand = (name) => (chosen) => {
  const { from, maxLiveLag, rate, today, until } = chosen
  const keys = keysOf(chosen)
  const lines = keys.length === 0 ? "" : `printf '%s\\n' ${keys.map(shellWord).join(" ")} | `
  return (
    lines +
    commandOf([today ? "reenrich" : "rebuild", name], {
      from,
      until,
      keys: keys.length > 0 ? "-" : undefined,
      rate,
      "max-live-lag": maxLiveLag
    })
  )
}
const Rebuild = ({ disabled, name, reload }) =>
  html`<${Action}
    label="Rebuild"
    disabled=${disabled}
    describe="Replays the log into the next build, beside the live one. Readers notice nothing."
    options=${rebuildOptions}
    command=${rebuildCommand(name)}
    request=${(chosen) => curlOf("POST", pathOf(name, "rebuild"), { body: JSON.stringify(rebuildBody(chosen)) })}
    plan=${async (chosen) => html`<${Plan} plan=${await runJob(`${pathOf(name, "rebuild")}?dryRun=true`, rebuildBody(chosen))} />`}
    act=${async (chosen) => {
      const { body } = await send("POST", pathOf(name, "rebuild"), { body: rebuildBody(chosen) })
      go(linkTo(["versions", name], { job: body.id }), { replace: true })
      return body.state === "running"
        ? "It runs; its progress is on the page."
        : "The build is where the live build is."
    }}
    onDone=${reload}
  />`
/** What can be done with a rebuild: `build` is the one that it makes. */
const Rebuilding = ({ build: { build, rebuild, role, until }, name, reload }) => {
  const state = rebuild?.state
  const only = role === "investigation" ? until : undefined
  const simple = (what, label, describe, more = {}) =>
    html`<${Action}
      small
      label=${label}
      danger=${what === "cancel"}
      describe=${describe}
      command=${(chosen = {}) => commandOf(["rebuild", name], { until: only, rate: chosen.rate, "max-live-lag": chosen.maxLiveLag, [what]: true })}
      request=${(chosen) => curlOf("POST", pathOf(name, `rebuild/${what}`), { body: JSON.stringify(bodyOf(chosen)) })}
      act=${async (chosen) => {
        const { body } = await send("POST", pathOf(name, `rebuild/${what}`), { body: bodyOf(chosen) })
        return body.build === null ? "There was nothing left to cancel." : `Build ${body.build}: ${body.state}.`
      }}
      onDone=${reload}
      ...${more}
    />`
  const bodyOf = ({ maxLiveLag, rate }) =>
    given({ until: only, rate: numberOr(rate, "max"), maxLiveLag: numberOr(maxLiveLag, "none") })
  return html`<div class="row">
    ${state === "running" && simple("pause", "Pause", "Its processes stop between two batches.")}
    ${state === "paused" && simple("resume", "Go on", "The rebuild goes on where it was.", { options: rebuildOptions.filter(({ name: option }) => option === "rate" || option === "maxLiveLag") })}
    ${simple("cancel", "Cancel", `Build ${build} is deleted, with its tables, and what it has read. The live build stays as it is.`)}
  </div>`
}

const Diff = ({ build, disabled, name, reload }) => {
  const bodyOf = (chosen) =>
    given({
      with: build,
      exact: chosen.exact,
      samples: chosen.samples === "5" ? undefined : numberOr(chosen.samples),
      timeoutMs: msOf(chosen)
    })
  return html`<${Action}
    small
    label="Compare"
    disabled=${disabled}
    describe=${`Compares each row of build ${build} with the live build. Both wait while it does; readers notice nothing.`}
    options=${[
      { name: "samples", label: "Samples a table", kind: "number", value: "5", hint: "0 to 100" },
      { name: "exact", label: "Differences by rounding count", kind: "flag" },
      timeout
    ]}
    command=${({ exact, samples, timeout: seconds }) => commandOf(["diff", name], { with: build, exact, samples: samples === "5" ? undefined : samples, timeout: seconds ? `${seconds}s` : undefined })}
    request=${(chosen) => curlOf("POST", pathOf(name, "diff"), { body: JSON.stringify(bodyOf(chosen)) })}
    act=${async (chosen, { report }) => {
      const { body: job } = await send("POST", pathOf(name, "diff"), { body: bodyOf(chosen) })
      go(linkTo(["versions", name], { job: job.id }), { replace: true })
      report("It runs; what it finds is on the page.")
      return job.result === null
        ? "It runs; what it finds is on the page."
        : `${job.result.equal ? "Both builds have the same rows" : "The builds differ"}; the details are on the page.`
    }}
    onDone=${reload}
  />`
}
/** Makes another build the live one: `build`, or the one before. */
const Switch = ({ build, isBack, name, reason, reload }) => {
  const bodyOf = (chosen) =>
    given({
      ...(isBack ? { rollback: true } : { build }),
      publish: chosen.publish ? "corrections" : undefined,
      timeoutMs: msOf(chosen)
    })
  const planned = async (chosen) => {
    const { publish: _, ...body } = bodyOf(chosen)
    return html`<${Promoted} result=${await runJob(`${pathOf(name, "promote")}?dryRun=true`, body)} />`
  }
  return html`<${Action}
    small
    label=${isBack ? "Roll back" : "Promote"}
    reason=${reason}
    danger=${isBack}
    describe=${
      isBack
        ? "The build that the last promotion replaced is live again. What the newer one has published stays published."
        : `Build ${build} takes over in one transaction, once it is where the live build is. It can be rolled back while the code of the previous version runs.`
    }
    options=${[
      ...(isBack
        ? []
        : [
            {
              name: "publish",
              label: "Publish corrections",
              kind: "flag",
              hint: "a message for each row of the derived topics that the new build has otherwise"
            }
          ]),
      timeout
    ]}
    command=${({ publish, timeout: seconds }) => commandOf(["promote", name], { ...(isBack ? { rollback: true } : { build }), publish: publish ? "corrections" : undefined, timeout: seconds ? `${seconds}s` : undefined })}
    request=${(chosen) => curlOf("POST", pathOf(name, "promote"), { body: JSON.stringify(bodyOf(chosen)) })}
    plan=${planned}
    act=${async (chosen, { report }) => html`<${Promoted} result=${await startJob(name, "promote", bodyOf(chosen), report, reload)} />`}
    onDone=${reload}
  />`
}
const Retire = ({ build, name, reason, reload }) => {
  const bodyOf = ({ drop, which }) => given({ build: which === "" ? undefined : build, drop })
  const textOf = ({ builds, dropped, published, timers }, done) =>
    html`<p>
        ${`${done ? "Retired" : "It would retire"} build${builds.length === 1 ? "" : "s"} ${builds.join(", ")}; ${dropped ? `${builds.length === 1 ? "its" : "their"} tables ${done ? "are" : "would be"} dropped` : "the tables stay"}.`}
      </p>
      ${timers > 0 && html`<p>${`${counted(timers, "timer")} and commands that wait ${done ? "were" : "would be"} deleted.`}</p>`}
      ${published && html`<p>What it published stays in its topics.</p>`}`
  return html`<${Action}
    small
    label="Retire"
    reason=${reason}
    danger
    confirm=${name}
    describe=${(chosen) =>
      `${chosen.which === "" ? "The builds whose version the configuration does not have" : `Build ${build}`} never process${chosen.which === "" ? "" : "es"} anything again${chosen.drop ? ", and the tables are dropped with all their rows" : "; the tables stay until they are dropped"}. A rollback to ${chosen.which === "" ? "them" : "it"} is not possible any more.`}
    options=${[
      {
        name: "which",
        label: "Which",
        kind: "choice",
        value: String(build),
        values: [
          [String(build), `build ${build}`],
          ["", "all that the configuration does not have"]
        ]
      },
      { name: "drop", label: "Drop the tables", kind: "flag", hint: "their rows are lost" }
    ]}
    command=${({ drop, which }) => commandOf(["retire", name, ...(which === "" ? [] : [String(build)])], { drop })}
    request=${(chosen) => curlOf("POST", pathOf(name, "retire"), { body: JSON.stringify(bodyOf(chosen)) })}
    plan=${async (chosen) => textOf((await send("POST", `${pathOf(name, "retire")}?dryRun=true`, { body: bodyOf(chosen) })).body, false)}
    act=${async (chosen) => textOf((await send("POST", pathOf(name, "retire"), { body: bodyOf(chosen) })).body, true)}
    onDone=${reload}
  />`
}

/** Whether a build is being rebuilt, or its rebuild is paused. */
const isGoing = ({ rebuild }) => rebuild !== null && ["running", "paused"].includes(rebuild.state)
/** Why a build cannot be retired, as the server decides it; undefined if it can, or if it is not known. */
const keptBecause = ({ build, role, version }, builds, configured) => {
  if (role !== "live") return undefined
  const follower = builds.find((one) => one.build !== build)
  if (follower !== undefined) return `it is the live build, and build ${follower.build} is there to replace it`
  return configured === version ? "it is the live build of the version that the configuration has" : undefined
}
/** What can be done with a build, by its role. */
const BuildActions = ({ build, builds, configured, isBusy, name, reload }) => {
  const { role } = build
  const busy = isBusy ? "a job of this projection is running" : undefined
  const shared = { name, build: build.build, reload }
  return html`<div class="row">
    ${(role === "candidate" || role === "investigation" || isGoing(build)) && html`<${Rebuilding} build=${build} name=${name} reload=${reload} />`}
    ${role !== "live" && role !== "investigation" && html`<${Diff} ...${shared} disabled=${isBusy} />`}
    ${(role === "candidate" || role === "follower") && html`<${Switch} ...${shared} reason=${busy} />`}
    ${role === "previous" && html`<${Switch} ...${shared} reason=${busy} isBack />`}
    ${role !== "candidate" && html`<${Retire} ...${shared} reason=${keptBecause(build, builds, configured)} />`}
  </div>`
}
const goOn = ({ from, until }) => [from && `from ${from}`, until && `until ${until}`].filter(Boolean).join(", ")
/** Whether the result of a job is of use later: what only looked what would be done is not. */
const isKept = ({ command, kind }) => ["rebuild", "diff", "promote"].includes(kind) && !/ --dry-run\b/.test(command)
/** `isAlone`: it is the only projection of the page, which has room for the result of its newest job. */
const One = ({ chosen, configured, found, isAlone, jobs, reload }) => {
  const { builds, job: running, name } = found
  const own = jobs.filter(({ subject }) => subject === name)
  const shown = chosen ?? running ?? (isAlone ? own.find(isKept)?.id : undefined)
  return html`<section class="card">
    <div class="row spread">
      <h2><a href=${linkTo(["versions", name])}>${name}</a></h2>
      <${Rebuild} name=${name} disabled=${running !== null || builds.some(isGoing)} reload=${reload} />
    </div>
    <${Table}
      stacks
      caption=${`Builds of ${name}`}
      rows=${builds}
      keyOf=${({ build }) => build}
      columns=${[
        { name: "build", numeric: true },
        { name: "version", numeric: true },
        {
          name: "role",
          cell: ({ inline, role }) =>
            html`<${Tag} kind=${roles[role]}>${role}<//>${inline && html` <${Tag}>inline<//>`}`
        },
        // before what is wide: on a phone it is on the screen
        {
          name: "more",
          label: "",
          cell: (build) =>
            html`<${BuildActions}
              build=${build}
              builds=${builds}
              configured=${configured}
              name=${name}
              isBusy=${running !== null}
              reload=${reload}
            />`
        },
        {
          name: "left",
          label: "records to go",
          numeric: true,
          cell: ({ left, role }) => (role === "live" ? "–" : number(left))
        },
        {
          name: "rebuild",
          cell: (one) =>
            html`${one.rebuild?.state ?? ""}
              <small class="quiet">${goOn(one)}${one.copy_of ? ` copy of ${one.copy_of}` : ""}</small>
              ${one.positions.filter(({ halted }) => halted).map(({ halted, partition, topic }) => html`<small class="wrong" key=${`${topic}/${partition}`}>${topic}/${partition} is halted: ${halted}</small>`)}`
        },
        { name: "schema", label: "schema in SQL", cell: ({ schema }) => html`<code>${schema}</code>` }
      ]}
    />
    ${shown !== undefined && html`<${Job} key=${shown} id=${shown} onEnd=${reload} />`}
    ${own.length > 0 && html`<${JobList} chosen=${chosen} jobs=${own} name=${name} />`}
  </section>`
}

export default ({ path: [name], query }) => {
  const list = useGet(base, { every: 3_000 })
  const jobs = useGet("/v1/operations/jobs", { every: 3_000 })
  const application = useGet("/v1/operations/application")
  const reload = () => (list.reload(), jobs.reload())
  return html`<header class="head">
      <h1>${name === undefined ? "Versions" : html`<a href=${linkTo("versions")}>Versions</a> / ${name}`}</h1>
    </header>
    ${name === undefined && html`<p class="lead">A projection is changed by a new build beside the live one: it replays the log, is compared row by row, and takes over in one transaction.</p>`}
    <${Loaded} of=${list}>
      ${({ projections }) => {
        const shown = projections.filter((one) => name === undefined || one.name === name)
        return shown.length === 0
          ? html`<${Empty} title=${name === undefined ? "No projection has run yet" : "There is no such projection"}
              ><a href=${linkTo("versions")}>All projections</a><//
            >`
          : shown.map(
              (one) =>
                html`<${One}
                  key=${one.name}
                  found=${one}
                  chosen=${query.job}
                  isAlone=${name !== undefined}
                  configured=${application.data?.projections.find((declared) => declared.name === one.name)?.version}
                  jobs=${jobs.data?.jobs ?? []}
                  reload=${reload}
                />`
            )
      }}
    <//>`
}
