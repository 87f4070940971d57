@echo off
rem Starts Atelier on Windows. The first time it installs what is needed into .venv beside it.
rem
rem   launch.bat              the page        [--port N] [--listen ADDRESS] [--no-browser]
rem   launch.bat demo         the whole way in the terminal: pictures, training, before and after
rem   launch.bat doctor       what is installed, what will work, and how to mend the rest
rem   launch.bat test         all checks and tests
rem   launch.bat update       the newest Atelier
rem
rem ATELIER_PYTHON=C:\path\to\python.exe   use this Python
rem ATELIER_TORCH=cpu or cuda              use this build of PyTorch, whatever card is found
rem
rem All paths below are relative to this folder, so that its name never has to be quoted or decoded.

setlocal EnableExtensions DisableDelayedExpansion
chcp 65001 >nul 2>nul
pushd "%~dp0"
if errorlevel 1 goto :no_folder

set "VENV_PYTHON=.venv\Scripts\python.exe"
set "INSTALL=backend\system\install.py"
set "PYTHON="
if defined PYTHONPATH echo PYTHONPATH is set; Atelier goes without it, so that only its own libraries are used.
if defined PYTHONHOME echo PYTHONHOME is set; Atelier goes without it, so that only its own libraries are used.
set "PYTHONPATH="
set "PYTHONHOME="
set "PYTHONNOUSERSITE=1"
set "PYTHONUTF8=1"

if /i "%~1"=="demo" goto :demo
if /i "%~1"=="doctor" goto :doctor
if /i "%~1"=="test" goto :test
if /i "%~1"=="update" goto :update
if /i "%~1"=="page" goto :page_verb
if /i "%~1"=="help" goto :usage
if /i "%~1"=="--help" goto :usage
if /i "%~1"=="-h" goto :usage
set "FIRST=%~1"
if not defined FIRST goto :page
if "%FIRST:~0,1%"=="-" goto :page
echo error: "%~1" is not something launch.bat can do
set "CODE=2"
goto :usage_end

:page_verb
call :rest %*
goto :page_start
:page
set REST=%*
:page_start
call :ready install
if errorlevel 1 goto :failed
"%VENV_PYTHON%" app.py %REST%
goto :ended

:demo
call :rest %*
call :ready install
if errorlevel 1 goto :failed
"%VENV_PYTHON%" -m backend.demo %REST%
goto :ended

:test
call :rest %*
call :ready install --dev
if errorlevel 1 goto :failed
"%VENV_PYTHON%" tools\run_tests.py %REST%
goto :ended

:doctor
call :rest %*
if exist "%VENV_PYTHON%" set PYTHON="%VENV_PYTHON%"
if not defined PYTHON call :find_python
if not defined PYTHON goto :failed
%PYTHON% -m backend.system.doctor %REST%
goto :ended

:update
call :find_python
if not defined PYTHON goto :failed
rem One line, read before it runs: an update may replace this file.
%PYTHON% -I "%INSTALL%" update & popd & exit /b

:usage
set "CODE=0"
:usage_end
findstr /b /c:"rem   launch.bat" launch.bat
popd
exit /b %CODE%

:ended
set "CODE=%ERRORLEVEL%"
if "%CODE%"=="0" goto :leave
goto :hold

:failed
set "CODE=3"

:hold
rem A window opened by a double click would close before anyone could read what went wrong.
set "LINE=%CMDCMDLINE:"=%"
if defined CI goto :leave
if /i not "%LINE:launch.bat=%"=="%LINE%" pause

:leave
popd
exit /b %CODE%

:no_folder
echo error: the folder of launch.bat cannot be opened
exit /b 3

rem ---------------------------------------------------------------------------------------------
rem All arguments but the first, into REST.
:rest
set "REST="
:rest_more
shift
if "%~1"=="" exit /b 0
set REST=%REST% %1
goto :rest_more

rem ready VERB [--dev]: everything is installed, or errorlevel 1.
:ready
if not exist "%VENV_PYTHON%" goto :ready_install
"%VENV_PYTHON%" -I "%INSTALL%" check %2 2>nul
if not errorlevel 1 exit /b 0
:ready_install
call :find_python
if not defined PYTHON exit /b 1
%PYTHON% -I "%INSTALL%" %*
if errorlevel 1 exit /b 1
exit /b 0

rem Sets PYTHON to the first Python that fits, or says what is wrong with those that were found.
:find_python
rem Asking for a version must not make the Python manager fetch it.
set "PYTHON_MANAGER_AUTOMATIC_INSTALL=0"
if defined ATELIER_PYTHON call :try "%ATELIER_PYTHON%"
call :try py -3.13
call :try py -3.12
call :try py -3.11
call :try py -3.10
call :try python
call :try python3
if defined PYTHON exit /b 0
echo error: no Python was found that fits; Atelier needs 3.10, 3.11, 3.12 or 3.13 (64-bit)
where py >nul 2>nul
if not errorlevel 1 py -E -s backend\system\probe.py 2>nul
where python >nul 2>nul
if not errorlevel 1 python -E -s backend\system\probe.py 2>nul
echo -^> Install 64-bit Python 3.12 for Windows (no administrator is needed), then start again.
exit /b 1

:try
if defined PYTHON exit /b 0
where %1 >nul 2>nul
if errorlevel 1 if not exist %1 exit /b 0
%* -E -s backend\system\probe.py >nul 2>nul
if errorlevel 1 exit /b 0
set PYTHON=%*
exit /b 0
