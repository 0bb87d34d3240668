# Runs a test of the kernel's ftracetest, whose folder is the working directory, and prints its results as KTAP.
# usage: TEST

logs=$(mktemp -d)
# Tests wait by pinging this machine.
ip link set lo up

sh ./ftracetest -k -vv -l "$logs" "$1" 2>"$logs"/stderr
status=$?
cat "$logs"/stderr >&2

# The command that decided: the last one traced, or the one before that which gave up. One that prints says why in the
# test's own words.
deciding() {
    awk '/^\++ exit_/ { exit } /^\++ / { last = $0 } END {
        sub(/^\++ /, "", last)
        # The trace quotes the words of an echo: \047 is a single quote, \042 a double one.
        if (sub(/^echo /, "", last)) {
            gsub(/\047\042\047\042\047/, "\047", last)
            gsub(/^\047|\047$/, "", last)
        }
        print last
    }' "$1"
}

# A test that can also run in a tracefs instance has two results: `[1] Some title<TAB>[PASS]`, `[2] (instance)  Some title...`
results=$(grep -E '^\[[0-9]+\].*	\[[A-Z]+\]$' "$logs"/ftracetest.log)
echo
echo "KTAP version 1"
if [ -z "$results" ]; then
    echo 1..1
    # The suite exits with 4 where the kernel cannot trace at all.
    if [ $status = 4 ]; then
        echo "ok 1 ftracetest # SKIP $(tail -n 1 "$logs"/stderr)"
    else
        echo "not ok 1 ftracetest # ERROR no result, exit status $status: $(tail -n 1 "$logs"/stderr)"
    fi
    exit
fi
echo "1..$(echo "$results" | wc -l)"
echo "$results" | while IFS= read -r line; do
    number=${line#[}
    number=${number%%]*}
    result=${line##*[}
    result=${result%]}
    title=$(printf '%s' "${line%	*}" | sed 's/^\[[0-9]*\] *//; s/  */ /g; s/#//g')
    log=$(ls "$logs"/"$number"-*-log.*)
    words=$(deciding "$log")
    reason="$result${words:+: $words}"
    case $result in
        PASS) echo "ok $number $title # PASS" ;;
        XFAIL) echo "not ok $number $title # XFAIL $words" ;;
        UNSUPPORTED | UNTESTED | UNRESOLVED) echo "ok $number $title # SKIP $reason" ;;
        *)
            tail -n 30 "$log" | sed 's/^/# /'
            case $result in
                FAIL) echo "not ok $number $title # $reason" ;;
                *) echo "not ok $number $title # ERROR $reason" ;;
            esac
            ;;
    esac
done
