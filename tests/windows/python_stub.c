/* Stands in for python.exe: writes down how it was called, and ends as the environment says.

   "install" leaves a .venv whose python.exe is this program; "check" asks whether there is one. */

#include <stdio.h>
#include <wchar.h>
#include <windows.h>

static const wchar_t *STAMP = L".venv\\stamp";

static int code_of(const wchar_t *name)
{
    const wchar_t *value = _wgetenv(name);
    return value ? _wtoi(value) : 0;
}

static void write_down(int count, wchar_t **arguments)
{
    char text[4096];
    FILE *log = _wfopen(_wgetenv(L"STUB_LOG"), L"ab");
    for (int i = 0; i < count; i++) {
        WideCharToMultiByte(CP_UTF8, 0, arguments[i], -1, text, sizeof text, NULL, NULL);
        fprintf(log, i ? "\t%s" : "%s", text);
    }
    fprintf(log, "\tPYTHONPATH=%ls\n", _wgetenv(L"PYTHONPATH") ? L"set" : L"");
    fclose(log);
}

static int install(void)
{
    wchar_t own[4096];
    int code = code_of(L"STUB_INSTALL");
    if (code)
        return code;
    GetModuleFileNameW(NULL, own, 4096);
    CreateDirectoryW(L".venv", NULL);
    CreateDirectoryW(L".venv\\Scripts", NULL);
    CopyFileW(own, L".venv\\Scripts\\python.exe", FALSE);
    fclose(_wfopen(STAMP, L"wb"));
    return 0;
}

int wmain(int count, wchar_t **arguments)
{
    write_down(count, arguments);
    for (int i = 1; i < count; i++) {
        if (wcsstr(arguments[i], L"probe.py"))
            return code_of(L"STUB_PROBE");
        if (wcsstr(arguments[i], L"install.py") && i + 1 < count) {
            if (!wcscmp(arguments[i + 1], L"check"))
                return GetFileAttributesW(STAMP) == INVALID_FILE_ATTRIBUTES;
            return wcscmp(arguments[i + 1], L"install") ? 0 : install();
        }
    }
    return code_of(L"STUB_CODE");
}
