// Runs in the pages of tests: what is cut off or out of the screen, and what the keyboard reached. Each function returns texts that name what is wrong.
globalThis.looks = (() => {
  const controls =
    "a[href], button:not(:disabled), input:not(:disabled), select:not(:disabled), textarea:not(:disabled), summary, [tabindex='0']"
  const isVisible = (element) =>
    element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && element.closest(".sr") === null
  const ancestorsOf = (element) => {
    const found = []
    for (let at = element.parentElement; at !== null; at = at.parentElement) found.push(at)
    return found
  }
  const isScrolled = (element) =>
    ancestorsOf(element).some(
      (one) => one !== document.body && /auto|scroll/.test(getComputedStyle(one).overflowX) && one.clientWidth > 0
    )
  const hasOwnText = (element) =>
    [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim() !== "")
  const nameOf = (element) => {
    const text = (element.getAttribute("aria-label") ?? element.textContent ?? "").trim().replaceAll(/\s+/g, " ")
    const kind = element.id === "" ? (element.className?.baseVal ?? element.className) : `#${element.id}`
    return `<${element.tagName.toLowerCase()} ${kind}> "${text.slice(0, 60)}"`
  }
  /** Texts and controls that are not fully on the screen, and cannot be scrolled to sideways in a part of the page. */
  const cutOff = () => {
    const problems = []
    const width = document.documentElement.clientWidth
    if (document.documentElement.scrollWidth > width)
      problems.push(`the page is ${document.documentElement.scrollWidth} pixels wide on a screen of ${width}`)
    for (const element of document.querySelectorAll("body *:not(svg *, datalist, option, script, .skip)")) {
      if (!isVisible(element)) continue
      const isControl = element.matches("button, input, select, textarea, a[href]")
      if (!hasOwnText(element) && !isControl) continue
      const style = getComputedStyle(element)
      const { left, right } = element.getBoundingClientRect()
      if ((right > width + 1 || left < -1) && !isScrolled(element))
        problems.push(`${nameOf(element)} reaches from ${Math.round(left)} to ${Math.round(right)} of ${width}`)
      if (style.display.startsWith("inline") && style.display === "inline") continue
      const isTooWide = element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0
      const isTooHigh = element.scrollHeight > element.clientHeight + 1 && element.clientHeight > 0
      const hides = (overflow) => overflow === "hidden" || overflow === "clip"
      if (element.matches("input, textarea, select")) continue
      if (isTooWide && (hides(style.overflowX) || (isControl && style.overflowX === "visible")) && element.title === "")
        problems.push(`the text of ${nameOf(element)} is cut off or leaves its box`)
      // the lines that are left out are in what opens
      if (isTooHigh && hides(style.overflowY) && style.webkitLineClamp === "none")
        problems.push(`the text of ${nameOf(element)} is cut off below`)
    }
    for (const group of document.querySelectorAll("svg .box")) {
      const box = group.querySelector("rect")?.getBBox()
      for (const text of group.querySelectorAll("text")) {
        const { width: own, x } = text.getBBox()
        if (box !== undefined && x + own > box.x + box.width) problems.push(`${nameOf(group)}: its text leaves its box`)
      }
    }
    return [...new Set(problems)]
  }
  /** Tables that scroll sideways. */
  const sideways = () =>
    [...document.querySelectorAll(".scroll")]
      .filter((one) => one.scrollWidth > one.clientWidth + 1)
      .map((one) => `${nameOf(one)} is ${one.scrollWidth} pixels wide in ${one.clientWidth}`)
  /** What a page must have beside what axe-core checks. */
  const missing = () => {
    const problems = []
    const heads = [...document.querySelectorAll("main h1")].filter(isVisible)
    if (heads.length !== 1) problems.push(`the page has ${heads.length} headings of level 1`)
    for (const selector of ["nav[aria-label]", "main", "a.skip", "[aria-live], [role=status]"])
      if (document.querySelector(selector) === null) problems.push(`the page has no ${selector}`)
    for (const table of document.querySelectorAll("main table:not(.u-legend)")) {
      if ((table.caption?.textContent ?? "").trim() === "") problems.push("a table has no caption")
      if (table.querySelector("th[scope=col]") === null)
        problems.push(`the table ${nameOf(table.caption ?? table)} has no headers`)
      // numbers stand under one another
      for (const cell of table.querySelectorAll("tbody td"))
        if (
          /^[\d,]{2,}(\.\d+)?$/.test(cell.textContent.trim()) &&
          getComputedStyle(cell).textAlign !== "right" &&
          cell.querySelector("a, button, code") === null
        )
          problems.push(
            `the number ${cell.textContent.trim()} of ${nameOf(table.caption ?? table)}, column ${cell.cellIndex + 1}, is not at the right`
          )
    }
    for (const chart of document.querySelectorAll("main .chart"))
      if ((chart.getAttribute("aria-label") ?? "") === "" || chart.getAttribute("role") !== "img")
        problems.push("a chart has no text")
    return [...new Set(problems)]
  }
  /** What moves though its user asked for less of it. */
  const moving = () =>
    document
      .getAnimations()
      .filter(({ effect }) => Number(effect?.getComputedTiming().duration) > 1)
      .map(({ effect }) => `${nameOf(effect.target)} moves`)
  const channels = (colour) => {
    const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d")
    context.fillStyle = colour
    context.fillRect(0, 0, 1, 1)
    return [...context.getImageData(0, 0, 1, 1).data]
  }
  const luminance = ([red, green, blue]) => {
    const linear = [red, green, blue].map((one) =>
      one / 255 <= 0.04045 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4
    )
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
  }
  /** What is wrong with the contrast of what the pointer is over, or is pressed. */
  const contrast = () => {
    const element = [...document.querySelectorAll("button:hover, a.figure:hover, nav a:hover")].at(-1)
    if (element === undefined) return ["nothing is below the pointer"]
    const grounds = [element, ...ancestorsOf(element)].map((one) => channels(getComputedStyle(one).backgroundColor))
    const [over, under] = [getComputedStyle(element).color, grounds.find((one) => one[3] === 255) ?? [255, 255, 255]]
      .map((one) => luminance(typeof one === "string" ? channels(one) : one))
      .toSorted((a, b) => b - a)
    const ratio = (over + 0.05) / (under + 0.05)
    return ratio < 4.5 ? [`${nameOf(element)} has a contrast of ${ratio.toFixed(1)} to 1 below the pointer`] : []
  }
  let wanted = new Set()
  let reached = new Set()
  let problems = []
  let isEnd = false
  const note = (element) => {
    if (reached.has(element)) return void (isEnd = true)
    reached.add(element)
    const { outlineStyle, outlineWidth } = getComputedStyle(element)
    const rect = element.querySelector(":scope > rect")
    const isShown =
      (outlineStyle !== "none" && Number.parseFloat(outlineWidth) > 0) ||
      (rect !== null && Number.parseFloat(getComputedStyle(rect).strokeWidth) >= 2)
    const { bottom, left, right, top } = element.getBoundingClientRect()
    if (!isShown) problems.push(`${nameOf(element)} has the focus and does not show it`)
    if (bottom < 0 || right < 0 || top > innerHeight || left > innerWidth)
      problems.push(`${nameOf(element)} has the focus and is not on the screen`)
  }
  document.addEventListener("focusin", ({ target }) => wanted.size > 0 && target.tabIndex >= 0 && note(target))
  /** Begins to note what gets the focus, in a part of the page; the next Tab goes to its first control. */
  const startKeyboard = (selector) => {
    reached = new Set()
    problems = []
    isEnd = false
    wanted = new Set(
      [...document.querySelectorAll(controls)].filter((one) => isVisible(one) && one.closest(selector) !== null)
    )
    const start = selector === "main" ? document.querySelector("main") : document.querySelector("a.skip")
    start.blur()
    start.focus()
  }
  /** Whether the keyboard has left the part of the page, and what was wrong on its way. */
  const keyboard = () => {
    const isLeft =
      isEnd || [...reached].some((one) => one.tabIndex >= 0 && !wanted.has(one) && one.closest("main") === null)
    const missed = [...wanted].filter((one) => one.isConnected && isVisible(one) && !reached.has(one) && !one.disabled)
    return {
      isEnd: isEnd || isLeft || missed.length === 0,
      problems,
      missed: missed.map((one) => `${nameOf(one)} is not reached`)
    }
  }
  return { contrast, cutOff, missing, moving, sideways, startKeyboard, keyboard }
})()
globalThis.violations = []
document.addEventListener("securitypolicyviolation", ({ blockedURI, violatedDirective }) =>
  globalThis.violations.push(`${violatedDirective} refuses ${blockedURI}`)
)
