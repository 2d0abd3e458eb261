# Reads nextest's JUnit report. Prints `tests failed skipped`; with -v list=1 one line for each failed or skipped test.
# Output of tests is XML-escaped in there, so no test can print a line that looks like an element.
function plain(text) {
    gsub(/&lt;/, "<", text); gsub(/&gt;/, ">", text); gsub(/&quot;/, "\"", text); gsub(/&apos;/, "'", text)
    gsub(/&#13;|\r/, "", text)
    gsub(/&amp;/, "\\&", text)
    return text
}
function attribute(line, name) {
    if (!match(line, " " name "=\"[^\"]*\"")) return ""
    return plain(substr(line, RSTART + length(name) + 3, RLENGTH - length(name) - 4))
}
function close_case() {
    if (!open) return
    open = 0
    tests++
    if (broken) {
        failures++
        if (list) print "FAILED " id ": " why
    } else if (skips) {
        skipped++
        if (list) printf "%s", said
    }
}
/^ *<testcase / {
    close_case()
    open = 1; broken = 0; skips = 0; said = ""; why = ""
    id = attribute($0, "classname") " " attribute($0, "name")
    if ($0 ~ /\/>[ ]*$/) close_case()
    next
}
/^ *<(failure|error)[ >]/ && open { broken = 1; why = attribute($0, "type"); next }
/^ *<\/testcase>/ { close_case(); next }
open {
    line = $0
    sub(/^ *<system-(out|err)>/, "", line)
    sub(/<\/system-(out|err)>$/, "", line)
    sub(/^test [^ ]+ \.\.\. /, "", line)
    if (line ~ /^SKIP [^:]+: ./) { skips++; said = said plain(line) "\n" }
}
END {
    close_case()
    if (!list) print tests + 0, failures + 0, skipped + 0
}
